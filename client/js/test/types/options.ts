// Options that a program computes, and that may be undefined, under the strictest settings. This file is compiled only.

import { type FollowOptions, type Options, type Position, connect } from '../../src/index.js'

declare const maybe: {
  number: number | undefined
  options: { [name in keyof Options]?: Options[name] | undefined }
  follow: { [name in keyof FollowOptions]?: FollowOptions[name] | undefined }
  position: Position | undefined
  expiresAt: Date | undefined
}

const client = connect('wss://host', {
  ...maybe.options, token: () => ({ token: 't', expiresAt: maybe.expiresAt }), buffer: maybe.number,
})
client.follow('u', { since: maybe.position })
client.follow('u', () => {}, maybe.follow)

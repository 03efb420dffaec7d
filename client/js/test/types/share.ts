// What connect() takes as share. This file is compiled only.

import { type Share, connect } from '../../src/index.js'
import { tabs } from '../../src/tabs.js'

const share: Share = tabs('ann')
connect('wss://host', { token: () => ({ token: 't', expiresAt: new Date() }), share })

// @ts-expect-error The published modules have other names within it, so that a function of an application cannot be one.
connect('wss://host', { token: () => 't', share: (_url, open, sink) => open(sink) })

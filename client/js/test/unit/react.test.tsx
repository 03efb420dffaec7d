// React on a server: what is rendered there, and that nothing is begun. The browser's part is tested in Chromium.

import { renderToString } from 'react-dom/server'
import { expect, test, vi } from 'vitest'
import { ShoalProvider, useConnection, useShoal, useUpload } from '../../src/react.js'
import { FakeSocket, installFakes, open, settle } from './fakes.js'

installFakes()

function Upload({ id }: { id: string | null }) {
  return <p>{useUpload(id).state} {useConnection().state} {String(useShoal() === null)}</p>
}

const text = (markup: string) => markup.replaceAll(/<!-- -->|<[^>]+>/g, '')

test('a provider connects nowhere while a server renders', async () => {
  const token = vi.fn(() => 't')
  const markup = renderToString(<ShoalProvider url="/ws/uploads" token={token}><Upload id="u" /><Upload id={null} /></ShoalProvider>)
  await settle()
  expect(text(markup)).toBe('pending connecting trueidle connecting true')
  expect(token).not.toHaveBeenCalled()
  expect(FakeSocket.all).toEqual([])
})

test('hooks without a provider wait', () => {
  expect(text(renderToString(<Upload id="u" />))).toBe('pending connecting true')
})

test('a client of the application is used, and follows nothing while a server renders', async () => {
  const client = open()
  const markup = renderToString(<ShoalProvider client={client}><Upload id="u" /></ShoalProvider>)
  expect(text(markup)).toBe('pending connecting false')
  expect(client.status('u').state).toBe('idle')
})

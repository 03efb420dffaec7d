// A page that is older than the deployed files: the code for streams is gone when it is first needed.

import { expect, test, vi } from 'vitest'
import { FakeSocket, installFakes, live, open, pass, settle } from './fakes.js'

installFakes()
vi.mock('../../src/sse.js', () => {
  throw new Error('404 Not Found')
})

test('sockets are tried again where the code for streams cannot be loaded', async () => {
  const client = open({ sse: true })
  for (let sockets = 1; sockets <= 2; sockets++) {
    await settle()
    expect(FakeSocket.all.length).toBe(sockets)
    FakeSocket.last.ends()
    if (sockets === 1) await pass(client.status().retryAt! - Date.now())
  }
  const failed = new Promise<void>((resolve) => {
    client.subscribe(() => client.status().state === 'waiting' && resolve())
  })
  await pass(client.status().retryAt! - Date.now())
  await failed
  expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'unreachable' } })
  await pass(client.status().retryAt! - Date.now())
  expect(FakeSocket.all.length).toBe(3)
  await live()
  expect(client.status()).toMatchObject({ state: 'live', transport: 'websocket' })
})

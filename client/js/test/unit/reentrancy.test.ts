// Functions of the application that call back into the client while it calls them.

import { expect, test } from 'vitest'
import type { ConnectionStatus } from '../../src/index.js'
import { FakeSocket, hear, installFakes, live, open, pass, progress, settle, subscribed } from './fakes.js'

installFakes()

test.each(['connecting', 'live', 'waiting'] as ConnectionStatus['state'][])('close in the moment of becoming %s is final', async (state) => {
  const client = open()
  client.follow('u', () => {})
  const socket = await live()
  client.subscribe(() => client.status().state === state && client.close())
  socket.ends()
  await pass(1000)
  if (client.status().state !== 'closed') await live()
  expect(client.status()).toEqual({ state: 'closed' })
  const sockets = FakeSocket.all.length
  await pass(3_600_000)
  expect(FakeSocket.all.length).toBe(sockets)
})

test('reconnect in the moment of waiting connects once', async () => {
  const client = open()
  const socket = await live()
  client.subscribe(() => client.status().state === 'waiting' && client.reconnect())
  socket.ends()
  await live()
  await pass(60_000)
  expect(client.status().state).toBe('live')
  expect(FakeSocket.all.length).toBe(2)
})

test('reconnect in the moment of stopping connects once', async () => {
  const client = open()
  const socket = await live()
  client.subscribe(() => client.status().state === 'stopped' && client.reconnect())
  socket.ends(1008)
  await live()
  await pass(60_000)
  expect([client.status().state, FakeSocket.all.length]).toEqual(['live', 2])
})

test('close and stop within a callback end at once', async () => {
  const client = open()
  const other = hear(client)
  const seen: string[] = []
  const stop = client.follow('u', (m) => {
    seen.push(m.action)
    stop()
  })
  const socket = await live()
  socket.says(subscribed(1), progress(1), progress(2))
  expect([seen.length, other.seen]).toEqual([1, [1, 2]])
  client.follow('u', () => client.close())
  await settle()
  expect(client.status()).toEqual({ state: 'closed' })
  socket.says(progress(3))
  expect(other.seen).toEqual([1, 2])
})

test.each(['stop', 'close'])('%s within a callback of another follow is final', async (end) => {
  const client = open()
  const seen: string[] = []
  client.follow('u', () => {
    seen.push('first')
    if (end === 'stop') stop()
    else client.close()
  })
  const stop = client.follow('u', () => seen.push('second'))
  ;(await live()).says(subscribed(1), progress(1))
  expect(seen).toEqual(['first'])
})

test('a listener that another one has ended is not called', async () => {
  const client = open()
  let calls = 0
  client.subscribe(() => end())
  const end = client.subscribe(() => calls++)
  await live()
  expect(calls).toBe(0)
})

test('close in a listener calls the others once more, and then no longer', async () => {
  const client = open()
  const seen: string[] = []
  client.subscribe(() => client.close())
  client.subscribe(() => seen.push(client.status().state))
  await live()
  expect(seen).toEqual(['closed'])
})

test.each(['close', 'abort'])('%s in the moment in which a follow begins is final', async (end) => {
  const client = open()
  const abort = new AbortController()
  client.subscribe(() => {
    if (client.status('u').state !== 'pending') return
    if (end === 'close') client.close()
    else abort.abort()
  }, 'u')
  const seen: unknown[] = []
  client.follow('u', (m) => seen.push(m), { signal: abort.signal })
  if (end === 'abort') (await live()).says(subscribed(1), progress(1))
  await pass(1)
  expect([client.status('u'), seen]).toEqual([{ state: 'idle' }, []])
  expect(client.status().state).toBe(end === 'close' ? 'closed' : 'live')
})

test('a follow that begins before a message is delivered gets nothing out of order', async () => {
  const client = open()
  hear(client)
  const socket = await live()
  socket.says(subscribed(1), progress(1))
  const late = hear(client)
  socket.says(progress(2)) // before the microtask that delivers the newest message
  await settle()
  socket.says(progress(3))
  expect(late.seen).toEqual([2, 3])
})

test('a follow that begins in a listener of the end of the former one does not keep close from ending', async () => {
  const client = open()
  let begun = 0
  const begin = () => {
    if (client.status('u').state !== 'idle' || begun === 10) return
    begun++
    client.follow('u', () => {})
  }
  client.subscribe(begin, 'u')
  begin()
  await live()
  client.close()
  expect(begun).toBeLessThan(10)
  expect([client.status(), client.status('u')]).toEqual([{ state: 'closed' }, { state: 'idle' }])
})

// Server-Sent Events in Node.js, where WebSockets are blocked.

import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Options, type Shoal, connect } from '../../src/index.js'
import { Proxy, Server, line, numbers, progress, take, token, until } from './harness.js'

let server: Server
let proxy: Proxy
const clients: Shoal<any>[] = []

beforeAll(async () => {
  server = await Server.start()
  proxy = await Proxy.before(server)
  proxy.blocking = true
})

afterEach(() => {
  for (const client of clients.splice(0)) client.close()
  proxy.mend()
})

afterAll(async () => {
  await proxy?.close()
  await server?.end()
})

function open(url: string, options: Partial<Options<any>> = {}): Shoal<any> {
  const client = connect<any>(url, { token: () => token(), ...options })
  clients.push(client)
  return client
}

test('streams deliver the same, through breaks, for several uploads', async () => {
  const client = open(proxy.url)
  const loop = client.follow('stream')
  const other = client.follow("it's another: (ü)")
  await until(client, 'live', 'stream')
  expect(client.status()).toMatchObject({ state: 'live', transport: 'sse' })
  await server.publish('stream', progress('stream', 10), line(1))
  expect(numbers(await take(loop, 2))).toEqual([10, 1])
  proxy.cut()
  await until(client, 'waiting')
  await server.publish('stream', line(2))
  await server.publish("it's another: (ü)", line(3))
  proxy.mend()
  expect(numbers(await take(loop, 1))).toEqual([2])
  expect(numbers(await take(other, 1))).toEqual([3])
  const third = client.follow('third') // a new request, which continues
  await until(client, 'live', 'third')
  await server.publish('stream', line(4))
  await server.publish('third', line(5))
  expect(numbers(await take(loop, 1))).toEqual([4])
  expect(numbers(await take(third, 1))).toEqual([5])
})

test('streams begin and end with nothing followed', async () => {
  const client = open(proxy.url)
  await until(client, 'live')
  const loop = client.follow('late')
  await until(client, 'live', 'late')
  await server.publish('late', line(1))
  expect(numbers(await take(loop, 1))).toEqual([1])
})

test('tokens are refused, renewed and expire all the same', async () => {
  const refused = open(proxy.url, { token: () => 'a.b.c', maxDelay: 50 })
  await expect(refused.follow('any').next()).rejects.toMatchObject({ code: 'invalid' })
  expect(refused.status().state).toBe('stopped')

  let calls = 0
  const client = open(proxy.url, { token: () => ({ token: token('ann', ++calls === 1 ? 3 : 3600), expiresAt: Infinity }) })
  const loop = client.follow('stream-expired')
  await until(client, 'live', 'stream-expired')
  await until(client, 'waiting')
  expect(client.status().error).toMatchObject({ code: 'expired' })
  await server.publish('stream-expired', line(1))
  expect(numbers(await take(loop, 1))).toEqual([1])
})

test('a user who is disconnected stays so, as with a WebSocket', async () => {
  const others: unknown[] = []
  const client = open(proxy.url, { token: () => token('eve'), onMessage: (message) => others.push(message) })
  client.follow('of-eve', () => {})
  await until(client, 'live', 'of-eve')
  await fetch(`http://127.0.0.1:${server.port}/v1/users/eve/connections`, {
    method: 'DELETE', headers: { Authorization: 'Bearer key' },
  })
  await until(client, 'stopped')
  expect(client.status().error).toMatchObject({ code: 'closed', closeCode: 1000 })
  expect(others).toEqual([])
})

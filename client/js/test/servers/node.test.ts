// The client in Node.js, with its own WebSocket, against real servers through everything that happens to them.

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { type Options, type Shoal, connect } from '../../src/index.js'
import { Proxy, Server, line, numbers, progress, take, token, until } from './harness.js'

let server: Server
let proxy: Proxy
const clients: Shoal<any>[] = []

beforeAll(async () => {
  server = await Server.start('--client-message-rate', '50/s,200', '--queue-messages', '64', '--ping-interval', '1s',
    '--history-messages', '2000', '--history-bytes', '8MiB')
  proxy = await Proxy.before(server)
})

afterEach(() => {
  for (const client of clients.splice(0)) client.close()
  proxy.rate = 0
  proxy.blocking = false
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

test('the newest message comes at once, then all that follow', async () => {
  await server.publish('snapshot', progress('snapshot', 10), progress('snapshot', 20))
  const client = open(server.url)
  const loop = client.follow('snapshot')
  expect(numbers(await take(loop, 1))).toEqual([20])
  await server.publish('snapshot', progress('snapshot', 30), line(1), { action: 'upload_failed', upload_id: 'snapshot', error_message: 'e' })
  expect((await take(loop, 3)).map((m) => m.action)).toEqual(['upload_progress', 'line', 'upload_failed'])
  expect(client.status()).toMatchObject({ state: 'live', transport: 'websocket', user: 'ann' })
})

test('a network that breaks loses nothing', async () => {
  const client = open(proxy.url)
  const loop = client.follow('broken')
  await until(client, 'live', 'broken')
  const wanted: number[] = []
  for (let round = 0; round < 5; round++) {
    proxy.cut()
    await until(client, 'waiting')
    for (let i = 0; i < 5; i++) {
      wanted.push(wanted.length)
      await server.publish('broken', line(wanted.at(-1)!))
    }
    proxy.mend()
    client.reconnect()
    await until(client, 'live', 'broken')
  }
  expect(numbers(await take(loop, wanted.length))).toEqual(wanted)
})

test('a server that is killed and started again is found again, and what it forgot is reported', async () => {
  const client = open(server.url)
  const loop = client.follow('killed')
  await until(client, 'live', 'killed')
  await server.publish('killed', line(1))
  expect(numbers(await take(loop, 1))).toEqual([1])
  await server.end('SIGKILL')
  await until(client, 'waiting')
  await server.begin()
  await server.publish('killed', line(2))
  expect(numbers(await take(loop, 2))).toEqual(['history', 2])
})

test('a server that drains says so, and is found again', async () => {
  const client = open(server.url)
  const codes: (string | undefined)[] = []
  client.subscribe(() => codes.push(client.status().error?.code))
  client.follow('drained', () => {})
  await until(client, 'live', 'drained')
  const ended = server.end('SIGTERM')
  await until(client, 'waiting')
  expect(codes).toContain('restart')
  await ended
  await server.begin()
  await until(client, 'live', 'drained')
})

test('a server that freezes is given up, and loses nothing', async () => {
  const client = open(server.url, { silence: 1500, connectTimeout: 1000, maxDelay: 200, sse: false })
  const loop = client.follow('frozen')
  await until(client, 'live', 'frozen')
  await server.publish('frozen', line(1))
  server.freeze()
  await until(client, 'waiting')
  expect(client.status().error).toMatchObject({ code: 'unreachable' })
  server.thaw()
  await server.publish('frozen', line(2))
  expect(numbers(await take(loop, 2))).toEqual([1, 2])
})

describe('tokens', () => {
  test('are renewed in place', async () => {
    let calls = 0
    // The client is told that a token ends long before the server ends it, so that no renewal can come too late.
    const client = open(server.url, { token: () => (calls++, { token: token(), expiresAt: Date.now() + 1000 }) })
    const states: string[] = []
    client.subscribe(() => states.push(client.status().state))
    await until(client, 'live')
    await vi.waitUntil(() => calls === 4, { timeout: 15_000 })
    expect(states).toEqual(['live'])
  })

  test('that expire are replaced, without loss', async () => {
    let calls = 0
    const client = open(server.url, {
      // The client cannot see when it ends.
      token: () => ({ token: token('ann', ++calls === 1 ? 4 : 3600), expiresAt: Infinity }),
    })
    const loop = client.follow('expired')
    await until(client, 'live', 'expired')
    await until(client, 'waiting')
    expect(client.status().error).toMatchObject({ code: 'expired', closeCode: 4003 })
    await server.publish('expired', line(1))
    expect(numbers(await take(loop, 1))).toEqual([1])
    expect(calls).toBe(2)
  })

  test('that are refused twice stop the client', async () => {
    const client = open(server.url, { token: () => 'a.b.c' })
    const loop = client.follow('refused')
    await expect(loop.next()).rejects.toMatchObject({ code: 'invalid', closeCode: 4003 })
    expect(client.status().state).toBe('stopped')
  })

  test('of nobody stop the client', async () => {
    const client = open(server.url, { token: () => null })
    await until(client, 'stopped')
  })
})

test('uploads that the token does not allow are refused, the others not', async () => {
  const strict = await Server.start('--authorize', 'claims')
  const client = open(strict.url, { token: () => token('ann', 3600, { uploads: ['mine'] }) })
  await expect(client.follow('theirs').next()).rejects.toMatchObject({ code: 'forbidden' })
  const loop = client.follow('mine')
  await until(client, 'live', 'mine')
  await strict.publish('mine', line(1))
  expect(numbers(await take(loop, 1))).toEqual([1])
  await strict.end()
})

test('a slow link gets the newest states and every event', async () => {
  const client = open(proxy.url)
  const loop = client.follow('slow', { buffer: 100_000 })
  await until(client, 'live', 'slow')
  proxy.rate = 400_000
  const message = 'x'.repeat(2000)
  for (let i = 0; i < 20; i++) {
    await server.publish('slow', ...Array.from({ length: 25 }, () => progress('slow', i, message)), line(i))
  }
  await server.publish('slow', line(-1))
  const seen: any[] = []
  for await (const m of loop) {
    seen.push(m)
    if (m.n === -1) break
  }
  expect(seen.filter((m) => m.action !== 'upload_progress').map((m) => m.n)).toEqual([...Array(20).keys(), -1])
})

test('300 uploads are followed, resumed and let go without a limit being met', async () => {
  const client = open(proxy.url)
  const ids = Array.from({ length: 300 }, (_, i) => `many-${i}`)
  const stops = ids.map((id) => client.follow(id, () => {}))
  await Promise.all(ids.map((id) => until(client, 'live', id)))
  proxy.cut()
  await until(client, 'waiting')
  proxy.mend()
  client.reconnect()
  await Promise.all(ids.map((id) => until(client, 'live', id)))
  for (const stop of stops) stop()
  const loop = client.follow('another')
  await until(client, 'live', 'another')
  await server.publish('another', line(1))
  expect(numbers(await take(loop, 1))).toEqual([1])
})

test('a server that is not Shoal is named, and gets no token', async () => {
  const headers: unknown[] = []
  const other = createServer((request, response) => {
    headers.push(request.headers.authorization)
    response.writeHead(404).end('not here')
  })
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
  const client = open(`http://127.0.0.1:${(other.address() as AddressInfo).port}`, { maxDelay: 50 })
  await until(client, 'waiting')
  expect(client.status().error).toMatchObject({ code: 'unreachable' })
  await vi.waitUntil(() => client.status().error?.code === 'not_shoal')
  expect(client.status().error!.message).toMatch(/404/)
  expect(headers.filter(Boolean)).toEqual([])
  client.close()
  other.closeAllConnections()
  await new Promise((resolve) => other.close(resolve))
})

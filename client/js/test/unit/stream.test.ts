// Server-Sent Events, against a fetch that answers what a test wants.

import { createHash } from 'node:crypto'
import { describe, expect, test, vi } from 'vitest'
import { FakeSocket, again, hear, installFakes, open, pass, progress, settle, subscribed } from './fakes.js'
import { Stream, blocked, newest } from './streams.js'

installFakes()

test('is used after two sockets that never opened', async () => {
  const { client, seen } = await blocked()
  expect(FakeSocket.all.length).toBe(2)
  expect(Stream.last.url).toBe('https://host/events/uploads?id=u')
  expect(Stream.last.headers).toEqual({ Authorization: 'Bearer token-1' })
  expect(client.status().state).toBe('connecting')
  await Stream.last.opens(subscribed(3), progress(3), progress(4))
  expect(client.status()).toMatchObject({ state: 'live', transport: 'sse' })
  expect(seen).toEqual([3, 4])
})

test.each([
  ['wss://host/api/ws/uploads?x=1', undefined, 'https://host/api/events/uploads'],
  ['wss://host/ws/uploads', '/other', 'https://host/other'],
  ['wss://host/live', 'https://else/stream', 'https://else/stream'],
  ['wss://host/live', '/stream?room=1', 'https://host/stream?room=1'],
])('belongs to the socket %s with the option %s', async (url, sse, want) => {
  await blocked(['u'], { ...(sse && { sse }) }, true, url)
  expect(Stream.last.url).toBe(`${want}${want.includes('?') ? '&' : '?'}id=u`)
})

test('is not used where sockets open, whatever ends them', async () => {
  const fetched = vi.fn(() => new Promise(() => {}))
  vi.stubGlobal('fetch', fetched)
  const client = open({ sse: true })
  for (let i = 0; i < 5; i++) {
    await pass(Math.max((client.status().retryAt ?? 0) - Date.now(), 0))
    FakeSocket.last.opens()
    FakeSocket.last.says({ action: 'auth_error', code: 'unavailable', message: 'later' })
    FakeSocket.last.ends(1013)
  }
  expect([FakeSocket.all.length, fetched.mock.calls.length]).toEqual([5, 0])
})

test('is never used where it is not wanted', async () => {
  await expect(blocked(['u'], { sse: false })).rejects.toThrow()
  expect(FakeSocket.all.length).toBeGreaterThan(2)
})

test('continues from the position when it ends, after one more socket', async () => {
  const { client, seen } = await blocked()
  await Stream.last.opens(subscribed(3, false, "e'1"), progress(3), progress(4))
  await Stream.last.sends('retry: 2000\n\n')
  await Stream.last.ends()
  expect(client.status()).toMatchObject({ state: 'waiting', retryAt: Date.now() + 2000 })
  await pass(2000)
  FakeSocket.last.ends()
  await pass(client.status().retryAt! - Date.now())
  await vi.waitFor(async () => {
    await pass(20)
    expect(Stream.all.length).toBe(2)
  })
  expect(FakeSocket.all.length).toBe(3)
  expect(Stream.last.headers['Last-Event-ID']).toBe('e%271:4')
  await Stream.last.opens(subscribed(5, true, "e'1"), progress(5))
  expect(seen).toEqual([3, 4, 5])
})

test('ends at once where an upload is claimed again from an earlier position', async () => {
  const { client, seen } = await blocked()
  await Stream.last.opens(subscribed(9), progress(9))
  const second = hear(client, 'u', { epoch: 'e', offset: 7 })
  await settle()
  expect(Stream.all[0]!.signal.aborted).toBe(true) // its messages may be beyond that position
  await pass(20)
  expect(Stream.last.headers['Last-Event-ID']).toBe('e:7')
  await Stream.last.opens(subscribed(10, true), progress(8), progress(9), progress(10))
  expect([seen, second.seen]).toEqual([[9, 10], [8, 9, 10]])
})

test('continues after the position of an upload whose newest message is no longer held', async () => {
  const { client } = await blocked()
  await Stream.last.opens({ ...subscribed(3), expired: true })
  hear(client, 'v')
  await pass(20)
  await vi.waitFor(() => expect(Stream.last.headers['Last-Event-ID']).toMatch(/=e:3$/))
})

test('follows several uploads, each from its position', async () => {
  const { client } = await blocked(['u', 'v'])
  await Stream.last.opens(subscribed(3), progress(3), subscribed(0, false, 'f', 'v'))
  hear(client, 'w')
  await pass(20)
  expect(Stream.all[0]!.signal.aborted).toBe(true)
  await vi.waitFor(() => expect(Stream.last.url).toBe('https://host/events/uploads?id=u&id=v&id=w'))
  const tag = (id: string) => createHash('sha256').update(id).digest().subarray(0, 6).toString('base64url')
  expect(Stream.last.headers['Last-Event-ID']).toBe(`${tag('u')}=e:3,${tag('v')}=f:0`)
  expect(client.status().state).toBe('live')
})

test('is asked without uploads only whether it is there', async () => {
  await expect(blocked([])).rejects.toThrow() // no stream
  expect(Stream.questions[0]!.url).toBe('https://host/events/uploads')
})

test('is not opened, and no token sent, before the server has shown to be Shoal', async () => {
  await blocked()
  expect(Stream.questions.map(({ headers }) => headers)).toEqual([{}])
})

// The error of fetch in Node.js has the whole header in it.
test.each(['sec\nret', 'secr\u0101t'])('is not asked for with the token %j, which no header can carry, nor repeats it', async (token) => {
  await expect(blocked(['u'], { token: () => token })).rejects.toThrow() // no stream
  expect(newest().status().error?.message ?? '').not.toContain(token)
  expect(Stream.all).toEqual([])
})

test('follows up to 256 uploads in streams of 64', async () => {
  const { client } = await blocked(Array.from({ length: 300 }, (_, i) => `u${i}`)).catch(() => ({ client: undefined }))
  expect(client).toBeUndefined() // four streams, not one
  expect(Stream.all.map(({ url }) => url.split('&').length)).toEqual([64, 64, 64, 64])
})

// The server sends messages to a user on each connection of the user, and each stream is one.
test('brings a message to the user once, however many streams there are', async () => {
  const other = vi.fn()
  const ids = Array.from({ length: 130 }, (_, i) => `u${i}`)
  const { client } = await blocked(ids, { onMessage: other }).catch(() => ({ client: undefined }))
  expect(client).toBeUndefined() // three streams, not one
  for (const [i, stream] of Stream.all.entries()) {
    const id = `u${64 * i}`
    await stream.opens(subscribed(1, false, 'e', id), progress(1, id), { action: 'to_user' }, { action: 'to_user', upload_id: 'none' })
  }
  expect(other.mock.calls.map(([{ action, upload_id: id }]) => [action, id])).toEqual([['to_user', undefined], ['to_user', 'none']])
})

// Each stream ends with its token, and the close that follows says only that it is invalid.
test.each([0, 2])('says why the token is refused in stream %i of several', async (i) => {
  const ids = Array.from({ length: 130 }, (_, i) => `u${i}`)
  await blocked(ids).catch(() => {}) // three streams, not one
  await Stream.all[0]!.opens(subscribed(1, false, 'e', 'u0'))
  await Stream.all[2]!.opens(subscribed(1, false, 'e', 'u128'))
  expect(newest().status().state).toBe('live')
  await Stream.all[i]!.says({ action: 'auth_error', code: 'revoked', message: 'Token has been revoked' })
  await Stream.all[i]!.closes(4003, 'Invalid token')
  expect(newest().status()).toMatchObject({ state: 'waiting', error: { code: 'revoked', closeCode: 4003 } })
})

// A proxy that keeps back what comes answers in the place of the server.
test('is given up where only its header comes', async () => {
  const { client } = await blocked()
  await Stream.last.answers({ headers: { 'Content-Type': 'text/event-stream' } })
  expect(client.status().state).toBe('connecting')
  await pass(20_000)
  expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'unreachable', message: 'no answer from host' } })
  expect(Stream.last.signal.aborted).toBe(true)
})

test('does not ask for more in one address than proxies take', async () => {
  const ids = Array.from({ length: 60 }, (_, i) => `${i}-`.padEnd(120, 'ü')) // 720 bytes each in an address
  const { client } = await blocked(ids).catch(() => ({ client: undefined }))
  expect(client).toBeUndefined() // four streams, not one
  expect(Stream.all.map(({ url }) => new URL(url).searchParams.getAll('id').length)).toEqual([8, 9, 9, 9])
  for (const { url } of Stream.all) expect(url.length).toBeLessThan(7000)
})

test.each([
  ['a line', (text: string) => text], ['the lines of an event', (text: string) => `data: ${text}\n`],
])('does not keep %s without an end', async (_, piece) => {
  const { client } = await blocked()
  await Stream.last.opens(subscribed(0))
  for (let i = 0; i < 4; i++) await Stream.last.sends(piece('x'.repeat((1 << 20) - 10)))
  expect(client.status().state).toBe('live')
  await Stream.last.sends(piece('x'.repeat(100)))
  expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'not_shoal', message: expect.stringContaining('too long') } })
  expect(Stream.last.signal.aborted).toBe(true)
})

test.each(['{', 'null', '7', '[]', '{"action":7}'])('is not Shoal with an event of %s', async (data) => {
  const other = vi.fn()
  const { client } = await blocked(['u'], { onMessage: other })
  await Stream.last.opens(subscribed(0))
  await Stream.last.sends(`data: ${data}\n\n`)
  expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'not_shoal' } })
  expect(other).not.toHaveBeenCalled()
})

test.each(['\n', '\r\n'])('reads events in pieces, with comments and several lines that end with %j', async (end) => {
  const { seen } = await blocked()
  await Stream.last.opens(subscribed(0))
  const text = `: hello\n\ndata: {"action":"ü",\ndata: "upload_id":"u"}\n\n:\n\n`
  const bytes = new TextEncoder().encode(text.replaceAll('\n', end))
  for (const byte of bytes) await Stream.last.sends(Uint8Array.of(byte))
  expect(seen).toEqual(['ü'])
})

describe('refusals', () => {
  test('of the token get a new one once', async () => {
    const { client } = await blocked()
    await Stream.last.refuses(401, { code: 'expired', detail: 'Token has expired' })
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'expired', closeCode: 4003 } })
    expect(client.status().error!.message).toContain('Token has expired')
  })

  test('of an upload end it', async () => {
    const { client, errors } = await blocked()
    await Stream.last.refuses(403, { detail: 'you may not follow this upload' })
    expect(errors).toEqual(['forbidden'])
    expect(client.status().state).toBe('live')
    hear(client, 'v') // is not refused with it
    await pass(20)
    expect(Stream.last.url).toBe('https://host/events/uploads?id=v')
  })

  test.each([503, 429])('with %i wait as long as the server says', async (status) => {
    const { client } = await blocked()
    await Stream.last.refuses(status, { detail: 'no new connections now' }, { 'Retry-After': '5' })
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'unavailable' }, retryAt: Date.now() + 5000 })
  })

  // A gateway in front of the server, for example. No token was shown yet, so none was refused.
  test.each([401, 403])('with %i of the question whether the server is Shoal are not from Shoal', async (status) => {
    const { client } = await blocked(['u'], {}, false)
    for (let round = 1; round <= 3; round++) {
      await Stream.last.refuses(status, { detail: 'Forbidden' })
      expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'not_shoal' } })
      for (let i = 0; i < 2; i++) {
        await pass(client.status().retryAt! - Date.now())
        FakeSocket.last.ends()
      }
      await pass(client.status().retryAt! - Date.now())
      await vi.waitFor(async () => {
        await pass(20)
        expect(Stream.all.length).toBe(round + 1)
      })
    }
  })

  test.each([[404, 'not found', 'text/plain'], [200, '<html>', 'text/html']])('with %i are not from Shoal', async (status, text, type) => {
    const { client } = await blocked(['u'], {}, false)
    expect(Stream.last.headers).toEqual({})
    await Stream.last.refuses(status, text, { 'Content-Type': type })
    expect(client.status().error).toMatchObject({ code: 'not_shoal', message: expect.stringMatching(/host.*\/events\/uploads/) })
  })

  test.each([
    ['null', 'application/problem+json'], ['"no"', 'application/json'], ['[', 'application/json'],
  ])('with a problem that is %s are named', async (text, type) => {
    const { client } = await blocked()
    await Stream.last.refuses(500, text, { 'Content-Type': type })
    expect(client.status().error).toMatchObject({ code: 'not_shoal', message: expect.stringContaining('500') })
  })

  test('with a problem that has no end are read up to a bound', async () => {
    const { client } = await blocked()
    await Stream.last.answers({ status: 500, headers: { 'Content-Type': 'application/problem+json' } })
    await Stream.last.sends('{"detail":"')
    for (let i = 0; i < 5 && !Stream.last.signal.aborted; i++) await Stream.last.sends('x'.repeat(1 << 14))
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'not_shoal', message: expect.stringContaining('500') } })
    expect(Stream.last.signal.aborted).toBe(true)
  })

  test('with a body that has no end are not read', async () => {
    const { client } = await blocked()
    await Stream.last.answers({ status: 200, headers: { 'Content-Type': 'video/mp4' } })
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'not_shoal' } })
    expect(Stream.last.signal.aborted).toBe(true)
  })

  test('by the network are named', async () => {
    const { client } = await blocked()
    await Stream.last.breaks()
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'unreachable', message: expect.stringContaining('network down') } })
  })
})

test('ends with its token, and a new one is shown', async () => {
  const { client } = await blocked()
  await Stream.last.opens(subscribed(0))
  await Stream.last.says({ action: 'auth_error', code: 'expired', message: 'Token has expired' })
  await Stream.last.closes(4003, 'Invalid token')
  expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'expired' } })
})

// The server says in the last event of a stream why it ends: as the close code of a WebSocket.
test.each([
  [1000, 'Normal closure', 'stopped', 'closed'], [1008, 'Too many requests', 'stopped', 'limit_exceeded'],
  [1012, 'Server reloading', 'waiting', 'restart'], [1013, 'Slow consumer', 'waiting', 'unavailable'],
])('ends with the code %i as a WebSocket would', async (closeCode, reason, state, code) => {
  const other = vi.fn()
  const { client } = await blocked(['u'], { onMessage: other })
  await Stream.last.opens(subscribed(0))
  await Stream.last.sends('retry: 4321\ndata: {"action":"reconnect","retry_after_ms":4321}\n\n')
  await Stream.last.closes(closeCode, reason)
  expect(client.status()).toMatchObject({ state, error: { code, closeCode, message: expect.stringContaining(reason) } })
  if (state === 'waiting') expect(client.status().retryAt).toBe(Date.now() + 4321)
  expect(other).not.toHaveBeenCalled()
})

test('shows a renewed token with a new request', async () => {
  await blocked(['u'], { token: () => ({ token: 't', expiresAt: Date.now() + 40_000 }) })
  const before = Stream.all.length
  await Stream.last.opens(subscribed(0))
  await pass(31_000)
  expect(Stream.all.length).toBeGreaterThan(before)
  expect(Stream.all[0]!.signal.aborted).toBe(true)
})

test('gives way to a socket that opens', async () => {
  vi.spyOn(Math, 'random').mockReturnValue(0.5)
  const { client, seen } = await blocked()
  await Stream.last.opens(subscribed(1), progress(1))
  await pass(10_000)
  FakeSocket.last.opens()
  expect(Stream.last.signal.aborted).toBe(true)
  const socket = await again(client)
  expect(client.status()).toMatchObject({ state: 'live', transport: 'websocket' })
  expect(socket.sent.at(-1)).toEqual({ action: 'resume', uploads: { u: { epoch: 'e', offset: 1 } } })
  expect(seen).toEqual([1])
})

test('goes on where a socket is tried that the environment refuses, or that is not of Shoal', async () => {
  vi.spyOn(Math, 'random').mockReturnValue(0.5)
  const { client, seen } = await blocked(['u'], { silence: Infinity })
  await Stream.last.opens(subscribed(1), progress(1))
  const asked: string[] = []
  // What a policy of the page does. A timer that throws would end a process of Node.js.
  const refusing = vi.spyOn(FakeSocket, 'added').mockImplementation(() => {
    asked.push('refused')
    throw new Error('SecurityError')
  })
  await pass(10_000)
  refusing.mockRestore()
  await pass(300_000)
  FakeSocket.last.opens('')
  FakeSocket.last.ends()
  await Stream.last.says(progress(2))
  expect([asked, FakeSocket.all.length, client.status().state, seen]).toEqual([['refused'], 3, 'live', [1, 2]])
})

test('is left at once by close', async () => {
  const { client } = await blocked()
  await Stream.last.opens(subscribed(1), progress(1))
  client.close()
  expect(Stream.last.signal.aborted).toBe(true)
})

test('brings messages of one chunk in order to a follow that begins with the first of them', async () => {
  const { client } = await blocked()
  const late: unknown[] = []
  const stop = client.follow('u', () => {
    stop()
    client.follow('u', (m: any) => late.push(m.offset))
  })
  await Stream.last.opens(subscribed(1), progress(1), progress(2), progress(3))
  expect(late).toEqual([1, 2, 3])
})

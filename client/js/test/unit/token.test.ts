import { describe, expect, test, vi } from 'vitest'
import { FakeSocket, again, installFakes, live, open, pass, settle } from './fakes.js'

installFakes()

const HOUR = 3_600_000

function jwt(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return `${part({ alg: 'HS256' })}.${part(claims)}.sig`
}

const seconds = () => Date.now() / 1000
const auths = (socket: FakeSocket) => socket.sent.filter(({ type }) => type === 'auth').map(({ token }) => token)

test('is renewed before its end, on the same connection', async () => {
  let calls = 0
  open({ token: () => jwt({ exp: seconds() + 3600, n: ++calls, name: 'ünicode?>~' }) })
  const socket = await live()
  await keepAlive(socket, HOUR - 60_001)
  expect(auths(socket).length).toBe(1)
  await pass(1)
  expect(auths(socket).length).toBe(2)
  socket.says({ action: 'auth_success', user_id: 'ann' })
  await keepAlive(socket, HOUR - 60_000)
  expect(auths(socket).length).toBe(3)
  expect(socket.sent.filter(({ action }) => action === 'subscribe_upload')).toEqual([])
  expect(FakeSocket.all.length).toBe(1)
})

async function keepAlive(socket: FakeSocket, ms: number): Promise<void> {
  for (; ms > 30_000; ms -= 30_000) {
    await pass(30_000)
    socket.says({ action: 'ping' })
  }
  await pass(ms)
}

test.each([
  ['expiresAt in ms', () => ({ token: 'opaque', expiresAt: Date.now() + 10_000 })],
  ['expiresAt as a Date', () => ({ token: 'opaque', expiresAt: new Date(Date.now() + 10_000) })],
  ['a JWT', () => jwt({ exp: seconds() + 10 })],
  ['a JWT, local clock an hour behind', () => jwt({ exp: seconds() + 3610, iat: seconds() + 3600 })],
])('of ten seconds is renewed after three quarters: %s', async (_, token) => {
  open({ token })
  const socket = await live()
  await pass(7_499)
  expect(auths(socket).length).toBe(1)
  await pass(1)
  expect(auths(socket).length).toBe(2)
})

test('that has expired by the local clock, but was accepted, is renewed now and then', async () => {
  open({ token: () => jwt({ exp: seconds() - 3600 }) })
  const socket = await live()
  await pass(29_999)
  expect(auths(socket).length).toBe(1)
  await pass(1)
  expect(auths(socket).length).toBe(2)
})

test.each(['opaque', 'a.b.c', jwt({}), jwt({ exp: 'soon' })])('without a known end is not renewed: %s', async (token) => {
  open({ token: () => token, silence: 1e9 })
  const socket = await live()
  await pass(24 * HOUR)
  expect(auths(socket).length).toBe(1)
})

test('is kept for the next connection unless it is about to end', async () => {
  const token = vi.fn(() => ({ token: 'opaque', expiresAt: Date.now() + 60_000 }))
  const client = open({ token })
  ;(await live()).ends()
  await again(client)
  expect(token).toHaveBeenCalledTimes(1)
})

test('whose renewal fails is asked for again, and the connection stays', async () => {
  let calls = 0
  const client = open({
    token: () => {
      if (++calls === 2) throw new Error('no')
      return { token: `t${calls}`, expiresAt: Date.now() + 40_000 }
    },
  })
  const socket = await live()
  await pass(30_000)
  expect(calls).toBe(2)
  await pass(7_500)
  expect(auths(socket)).toEqual(['t1', 't3'])
  expect(client.status().state).toBe('live')
})

describe('that cannot be checked at its renewal', () => {
  const unavailable = { action: 'auth_error', code: 'unavailable', message: 'later' }
  const renewing = async () => {
    let calls = 0
    const client = open({ token: () => ({ token: `t${++calls}`, expiresAt: Date.now() + 600_000 }) })
    const socket = await live()
    await keepAlive(socket, 540_000)
    expect(auths(socket)).toEqual(['t1', 't2'])
    socket.says(unavailable)
    return { client, socket }
  }

  test('is shown again until it is accepted, before the former one ends', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0.5)
    const { client, socket } = await renewing()
    await pass(250)
    socket.says(unavailable)
    await pass(500)
    expect(auths(socket)).toEqual(['t1', 't2', 't2', 't2'])
    socket.says({ action: 'auth_success', user_id: 'ann' })
    await keepAlive(socket, 500_000)
    expect([auths(socket).length, client.status().state]).toEqual([4, 'live'])
  })

  test.each([[1006, 'waiting', 'unreachable'], [1008, 'stopped', 'limit_exceeded'], [4003, 'waiting', 'invalid']])(
    'is not the reason of a later close with %i', async (closeCode, state, code) => {
      const { client, socket } = await renewing()
      socket.ends(closeCode)
      expect(client.status()).toMatchObject({ state, error: { code } })
    })
})

describe('refused', () => {
  test('is replaced once, then the client stops', async () => {
    const client = open()
    for (const state of ['waiting', 'stopped']) {
      await pass(500)
      FakeSocket.last.opens()
      FakeSocket.last.says({ action: 'auth_error', message: 'Token has expired', code: 'expired' })
      FakeSocket.last.ends(4003, 'Invalid token')
      expect(client.status()).toMatchObject({ state, error: { code: 'expired', closeCode: 4003 } })
      expect(client.status().error!.message).toContain('Token has expired')
    }
    expect(FakeSocket.all.map((socket) => auths(socket)[0])).toEqual(['token-1', 'token-2'])
    client.reconnect() // after logging in again
    const socket = await live()
    expect(auths(socket)).toEqual(['token-3'])
    socket.ends(4003)
    expect(client.status().state).toBe('waiting') // one that was good may expire
  })

  test('for lack of a check is kept', async () => {
    const client = open()
    for (let i = 0; i < 4; i++) {
      await pass(Math.max((client.status().retryAt ?? 0) - Date.now(), 0))
      FakeSocket.last.opens()
      FakeSocket.last.says({ action: 'auth_error', message: 'later', code: 'unavailable' })
      FakeSocket.last.ends(i % 2 ? 4003 : 1013)
      expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'unavailable' } })
    }
    expect(FakeSocket.all.map((socket) => auths(socket)[0])).toEqual(Array(4).fill('token-1'))
  })

  test('ends loops with the error', async () => {
    const client = open()
    const next = client.follow('u').next()
    const failed = expect(next).rejects.toMatchObject({ code: 'limit_exceeded' })
    ;(await live()).ends(1008, 'Too many messages')
    await failed
    await expect(client.follow('v').next()).rejects.toMatchObject({ code: 'limit_exceeded' })
  })
})

describe('a token function', () => {
  test.each([
    ['throws', () => { throw new Error('backend is down') }, /token\(\) failed: backend is down/],
    ['rejects', () => Promise.reject(new Error('offline')), /offline/],
    ['rejects with nothing', () => Promise.reject(undefined), /undefined/],
    ['returns nothing', () => undefined as any, /returned undefined/],
    ['returns an empty string', () => '', /returned ""/],
    ['returns a number', () => 7 as any, /number/],
    ['returns an object without token', () => ({}) as any, /undefined/],
  ])('that %s is named and called again later', async (_, token, text) => {
    const client = open({ token })
    await settle()
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'token' } })
    expect(client.status().error!.message).toMatch(text)
    expect(FakeSocket.all).toEqual([])
  })

  test('that does not answer is given up', async () => {
    let given!: AbortSignal
    const client = open({ token: ({ signal }) => new Promise(() => { given = signal }) })
    await pass(20_000)
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'token' } })
    expect(client.status().error!.message).toMatch(/no answer from token\(\)/)
    expect(given.aborted).toBe(true)
  })

  test('that returns null stops the client until it is asked to go on', async () => {
    let token: string | null = null
    const client = open({ token: () => token })
    await settle()
    expect(client.status()).toMatchObject({ state: 'stopped', error: { code: 'logged_out' } })
    token = 'good'
    client.reconnect()
    await live()
    expect(client.status().state).toBe('live')
  })

  test('that answers after close is ignored', async () => {
    let answer!: (token: string) => void
    const client = open({ token: () => new Promise((resolve) => { answer = resolve }) })
    await settle()
    client.close()
    answer('late')
    await settle()
    expect(FakeSocket.all).toEqual([])
  })
  test('that answers after a login as another user does not bring the former token back', async () => {
    let late!: (token: object) => void
    const lasting = (token: string) => ({ token, expiresAt: Date.now() + HOUR })
    const answers = [
      () => ({ token: 'ann-1', expiresAt: Date.now() + 100_000 }),
      () => new Promise<any>((resolve) => { late = resolve }), // the renewal
      () => lasting('bob-1'),
    ]
    const client = open({ token: () => answers.shift()!() })
    const first = await live()
    await pass(75_000)
    expect(answers.length).toBe(1)
    first.ends(1008)
    client.reconnect() // as another user
    const second = await live()
    late(lasting('ann-2'))
    await settle()
    second.ends()
    expect([first, second, await again(client)].map((socket) => auths(socket))).toEqual([['ann-1'], ['bob-1'], ['bob-1']])
  })

  test('that answers after a refusal of the token does not replace the newer one', async () => {
    let late!: (token: object) => void
    const answers = [
      () => ({ token: 'old-1', expiresAt: Date.now() + 100_000 }),
      () => new Promise<any>((resolve) => { late = resolve }),
      () => ({ token: 'new', expiresAt: Date.now() + HOUR }),
    ]
    const client = open({ token: () => answers.shift()!() })
    const first = await live()
    await pass(75_000)
    first.ends(4003)
    const second = await again(client)
    late({ token: 'old-2', expiresAt: Date.now() + HOUR })
    await settle()
    second.ends()
    expect(auths(await again(client))).toEqual(['new'])
  })
})

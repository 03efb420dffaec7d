import { describe, expect, test, vi } from 'vitest'
import { ShoalError, connect } from '../../src/index.js'
import { FakeSocket, again, hear, installFakes, live, open, pass, progress, resumed, settle, subscribed } from './fakes.js'

installFakes()

const states = (client: ReturnType<typeof open>) => {
  const seen: string[] = [client.status().state]
  client.subscribe(() => seen.push(client.status().state))
  return seen
}

test('authenticates first, then follows', async () => {
  const client = open()
  const seen = states(client)
  client.follow('u', () => {})
  const socket = await live()
  expect(socket.asked).toBe('shoal.v1')
  expect(String(socket.url)).toBe('wss://host/ws/uploads')
  expect(socket.sent).toEqual([{ type: 'auth', token: 'token-1' }, { action: 'subscribe_upload', upload_id: 'u' }])
  expect(seen).toEqual(['connecting', 'live'])
  expect(client.status()).toMatchObject({ transport: 'websocket', user: 'ann' })
})

test('answers pings', async () => {
  open()
  const socket = await live()
  socket.says({ action: 'ping' })
  expect(socket.sent.at(-1)).toEqual({ action: 'pong' })
})

describe('reconnecting', () => {
  test('draws from a range that doubles up to a bound, and begins again after a steady connection', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0.5)
    const client = open()
    const delays: number[] = []
    for (let i = 0; i < 8; i++) {
      const socket = await live()
      socket.ends()
      delays.push(client.status().retryAt! - Date.now())
      await pass(delays.at(-1)!)
    }
    expect(delays).toEqual([250, 500, 1000, 2000, 4000, 7500, 7500, 7500])
    const socket = await live()
    await pass(5000)
    socket.ends()
    expect(client.status().retryAt! - Date.now()).toBe(250)
  })

  test('waits at least as long as the server asks for, bounded', async () => {
    const client = open()
    let socket = await live()
    socket.says({ action: 'reconnect', retry_after_ms: 4321 })
    socket.ends(1012, 'Server reloading')
    expect(client.status()).toMatchObject({ state: 'waiting', retryAt: Date.now() + 4321 })
    expect(client.status().error).toMatchObject({ code: 'restart', closeCode: 1012 })
    socket = await again(client)
    socket.says({ action: 'reconnect', retry_after_ms: 1e15 }, { action: 'reconnect', retry_after_ms: 'soon' })
    socket.ends(1012)
    await pass(599_999)
    expect(FakeSocket.all.length).toBe(2)
    await pass(1)
    expect(FakeSocket.all.length).toBe(3)
  })

  test('does not wait for a time that has passed when the clock is set back', async () => {
    const client = open()
    const socket = await live()
    socket.says({ action: 'reconnect', retry_after_ms: 1000 })
    socket.ends(1012)
    const next = await again(client)
    vi.setSystemTime(Date.now() - 3_600_000)
    next.ends()
    expect(client.status().retryAt! - Date.now()).toBeLessThanOrEqual(1000)
    await again(client)
    expect(FakeSocket.all.length).toBe(3)
  })

  test.each([1001, 1005, 1006, 1011, 1012, 1013, 4001, 4999])('comes again after close code %i', async (code) => {
    const client = open()
    ;(await live()).ends(code)
    expect(client.status().state).toBe('waiting')
    expect(client.status().error).toBeInstanceOf(ShoalError)
  })

  test.each([[1000, 'closed'], [1008, 'limit_exceeded'], [1009, 'limit_exceeded'], [4002, 'required'], [4004, 'bad_request']])(
    'stops after close code %i', async (closeCode, code) => {
      const client = open()
      ;(await live()).ends(closeCode, 'Why')
      expect(client.status()).toMatchObject({ state: 'stopped', error: { code, closeCode } })
      expect(client.status().error!.message).toContain('Why')
      await pass(3_600_000)
      expect(FakeSocket.all.length).toBe(1)
      client.reconnect()
      await live()
      expect(client.status().state).toBe('live')
    })

  test.each([['then the end', true], ['and no end, as in Node.js 20', false]])('comes again after an error %s', async (_, ends) => {
    const client = open()
    await settle()
    FakeSocket.last.fails()
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'unreachable' } })
    if (ends) FakeSocket.last.ends()
    FakeSocket.last.fails()
    await again(client)
    expect(FakeSocket.all.length).toBe(2)
  })

  test('gives an attempt up that takes too long', async () => {
    const client = open()
    await pass(20_000)
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'unreachable' } })
    expect(FakeSocket.last.closedWith).toBe(1000)
  })

  test('reports an address that the environment refuses', async () => {
    vi.stubGlobal('WebSocket', class { constructor() { throw new Error('SecurityError') } })
    const client = open()
    await settle()
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'unreachable' } })
  })
})

describe('the page', () => {
  const target = new EventTarget()
  const page = (visible = 'visible') => {
    vi.stubGlobal('addEventListener', target.addEventListener.bind(target))
    vi.stubGlobal('document', { hidden: visible !== 'visible' })
  }
  const happens = (type: string, persisted = true) =>
    target.dispatchEvent(Object.assign(new Event(type), /^page/.test(type) && { persisted }))

  test.each(['online', 'pageshow', 'visibilitychange'])('ends a wait at %s and begins with short delays again', async (type) => {
    page()
    vi.spyOn(Math, 'random').mockReturnValue(1)
    const client = open()
    for (let i = 0; i < 6; i++) {
      await settle()
      FakeSocket.last.ends()
      if (i < 5) await pass(client.status().retryAt! - Date.now())
    }
    expect(client.status().retryAt! - Date.now()).toBe(15_000)
    happens(type)
    const socket = await live()
    socket.ends()
    expect(client.status().retryAt! - Date.now()).toBe(500)
  })

  test('comes back while an attempt hangs, which is then given up soon', async () => {
    page()
    vi.spyOn(Math, 'random').mockReturnValue(1)
    const client = open()
    await pass(1000)
    happens('online')
    await pass(1000)
    happens('online')
    await pass(4000)
    expect([client.status().state, FakeSocket.all.length]).toEqual(['waiting', 1])
    await pass(500)
    happens('online')
    await live()
    await pass(5000)
    expect([client.status().state, FakeSocket.all.length]).toEqual(['live', 2])
  })

  test('has not come back when it has just been loaded', async () => {
    page()
    vi.spyOn(Math, 'random').mockReturnValue(1)
    const client = open()
    await settle()
    happens('pageshow', false)
    await pass(19_999) // an attempt that is tested would be given up after 5 s
    expect(client.status().state).toBe('connecting')
    await pass(1)
    const { retryAt } = client.status()
    happens('pageshow', false)
    expect(client.status()).toMatchObject({ state: 'waiting', retryAt })
    await pass(500)
    await live()
    happens('pageshow', false)
    expect(FakeSocket.last.sent.length).toBe(1)
  })

  test('does not come before the time that the server asked for', async () => {
    page()
    const client = open()
    const socket = await live()
    socket.says({ action: 'reconnect', retry_after_ms: 3000 })
    socket.ends(1012)
    happens('visibilitychange')
    await pass(2999)
    expect(FakeSocket.all.length).toBe(1)
    await pass(1)
    expect(FakeSocket.all.length).toBe(2)
    client.close()
  })

  test('does nothing when it is hidden', async () => {
    page('hidden')
    const client = open()
    ;(await live()).ends()
    happens('visibilitychange')
    await settle()
    expect(client.status().state).toBe('waiting')
  })

  test('tests a live connection, and gives it up without an answer', async () => {
    page()
    const client = open()
    const socket = await live()
    happens('online')
    expect(socket.sent.at(-1)).toEqual({ action: 'resume', uploads: {} })
    socket.says({ action: 'resumed', uploads: {} })
    await pass(5000)
    expect(client.status().state).toBe('live')
    happens('pageshow')
    await pass(5000)
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'unreachable' } })
  })

  test('lets go of the connection when it goes away, and connects when it comes back', async () => {
    page()
    const client = open()
    const { seen } = hear(client)
    const socket = await live()
    socket.says(subscribed(1), progress(1))
    happens('pagehide')
    expect(socket.closedWith).toBe(1000)
    await pass(3_600_000)
    expect(FakeSocket.all.length).toBe(1)
    happens('pageshow')
    const next = await live()
    expect(next.sent.at(-1)).toEqual({ action: 'resume', uploads: { u: { epoch: 'e', offset: 1 } } })
    next.says(resumed(2), progress(2))
    expect(seen).toEqual([1, 2])
  })

  test('is left without listeners', async () => {
    page()
    const added = vi.spyOn(target, 'addEventListener')
    page()
    const client = open()
    await live()
    client.close()
    expect(added.mock.calls.length).toBeGreaterThan(0)
    for (const [, , options] of added.mock.calls) expect((options as AbortController).signal.aborted).toBe(true)
  })
})

test('a silent connection is tested and given up', async () => {
  const client = open()
  const socket = await live()
  await pass(74_999)
  expect(socket.sent.length).toBe(1)
  await pass(1)
  expect(socket.sent.at(-1)).toEqual({ action: 'resume', uploads: {} })
  socket.says({ action: 'resumed', uploads: {} })
  await pass(75_000)
  await pass(4_999)
  expect(client.status().state).toBe('live')
  await pass(1)
  expect(client.status().state).toBe('waiting')
})

describe('a server that is not Shoal', () => {
  test('gets no token and is named, without the secrets of its address', async () => {
    const client = open({}, 'wss://ann:password@host/ws/uploads?key=secret')
    await settle()
    FakeSocket.last.opens('')
    expect(FakeSocket.last.sent).toEqual([])
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'not_shoal' } })
    expect(client.status().error!.message).toBe('host/ws/uploads does not speak shoal.v1')
  })

  test.each(['hello', '[]', 'null', '{"type":"auth"}', '7'])('is named when it says %s', async (text) => {
    const client = open()
    ;(await live()).says(text)
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'not_shoal' } })
  })

  // An error in the handler of a socket would end a process of Node.js.
  test.each([
    { action: 'error', code: 'forbidden', upload_ids: 7 }, { action: 'error', code: {}, upload_ids: [null], message: { toString: 7 } },
    { action: 'error', upload_id: 'u', message: { toString: 7 } },
  ])('may send %o, which does not throw', async (message) => {
    const client = open()
    hear(client)
    const socket = await live()
    expect(() => socket.says(message)).not.toThrow()
    expect(['live', 'waiting']).toContain(client.status().state)
    await again(client)
  })

  test('may send anything in the messages of the protocol', async () => {
    const client = open()
    const { seen } = hear(client)
    const socket = await live()
    socket.says(
      { action: 'subscribed' }, { action: 'subscribed', upload_id: 7, epoch: null }, { action: 'resumed' },
      { action: 'resumed', uploads: null }, { action: 'resumed', uploads: { u: null } }, { action: 'subscribed', upload_id: 'u' }, { action: 'unsubscribed' },
      { action: 'error' }, { action: 'reconnect' }, { action: 'auth_success' }, { action: 'x', payload: null },
    )
    expect(client.status('u').state).toBe('ended') // the error named no upload, so it concerned the one that waited
    expect(seen).toEqual([])
  })
})

test.each([
  ['nowhere', /"nowhere"/], ['ftp://host/', /ftp/], ['', /wss:/], [undefined as any, /undefined/],
])('refuses the URL %s', (url, text) => {
  expect(() => connect(url, { token: () => 't' })).toThrow(text)
})

test('takes http URLs and adds the path', async () => {
  const client = connect('https://host', { token: () => 't' })
  await settle()
  expect(String(FakeSocket.last.url)).toBe('wss://host/ws/uploads')
  client.close()
})

test('refuses ws: in a page served over https', () => {
  vi.stubGlobal('location', { protocol: 'https:', href: 'https://page.example/' })
  expect(() => connect('ws://page.example/ws/uploads?key=secret', { token: () => 't' })).toThrow(
    expect.objectContaining({ code: 'insecure', message: 'a page over https needs "wss:" for page.example' }))
  connect('ws://localhost:8080', { token: () => 't' }).close()
  connect('/ws/uploads', { token: () => 't' }).close()
})

test.each([
  [{} as object, /token/], [{ token: 'abc' }, /token is string/], [{ token: (): string => '', buffer: 0 }, /buffer is 0/],
  [{ token: (): string => '', silence: NaN }, /silence is NaN/], [undefined, /token is undefined/],
])('refuses the options %o', (options, text) => {
  expect(() => connect('wss://host', options as any)).toThrow(text)
})

test('a time without end is none', async () => {
  const timers = vi.spyOn(globalThis, 'setTimeout')
  const client = open({ connectTimeout: Infinity, silence: Infinity, maxDelay: Infinity })
  await pass(100)
  expect(FakeSocket.all.length).toBe(1)
  const socket = await live()
  await pass(3_600_000)
  expect([client.status().state, socket.sent.length]).toEqual(['live', 1])
  expect(Math.max(...timers.mock.calls.map(([, delay]) => delay!))).toBeLessThan(2 ** 31)
})

test('needs a WebSocket or streams', () => {
  vi.stubGlobal('WebSocket', undefined)
  expect(() => connect('wss://host', { token: () => 't', sse: false })).toThrow(/WebSocket is missing/)
})

describe('close', () => {
  test('leaves nothing behind, at any time', async () => {
    const fresh = open()
    fresh.close()
    const connecting = open()
    await settle()
    connecting.close()
    const waiting = open()
    await settle()
    FakeSocket.last.ends()
    waiting.close()
    const client = open()
    client.follow('u', () => {})
    const socket = await live()
    client.close()
    client.close()
    client.reconnect()
    expect(socket.closedWith).toBe(1000)
    const { length } = socket.sent
    socket.opens()
    socket.says({ action: 'ping' })
    socket.fails()
    socket.ends()
    expect(socket.sent.length).toBe(length)
    await pass(3_600_000)
    expect(FakeSocket.all.length).toBe(3)
    expect(client.status()).toEqual({ state: 'closed' })
  })

  test('ends follows, before and after', async () => {
    const client = open()
    const loop = client.follow('u')
    const next = loop.next()
    client.close()
    expect(await next).toEqual({ done: true, value: undefined })
    expect(await client.follow('v').next()).toEqual({ done: true, value: undefined })
    client.follow('v', () => {})()
    expect(client.status('v').state).toBe('idle')
  })
})

test('a test of the connection is not begun again before it has ended', async () => {
  const client = open({ silence: 1000 })
  const socket = await live()
  await pass(5999)
  expect(socket.sent.filter(({ action }) => action === 'resume').length).toBe(1)
  expect(client.status().state).toBe('live')
  await pass(1)
  expect(client.status().state).toBe('waiting')
})

// The page's client of shoal.v1, against a server that says exactly what a test wants, in time that a test turns.

import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import FakeTimers from '@sinonjs/fake-timers'
import { ShoalClient } from '../page/assets/client.js'

const HOUR = 3_600_000
let sockets

class FakeSocket {
  static OPEN = 1
  readyState = 1
  sent = []

  constructor(url, protocol) {
    Object.assign(this, { url, protocol })
    sockets.push(this)
  }

  send(text) { this.sent.push(JSON.parse(text)) }
  close() { this.readyState = 3 }
  says(...messages) { for (const message of messages) this.onmessage({ data: JSON.stringify(message) }) }
  ends(code, reason = '') {
    this.readyState = 3
    this.onclose({ code, reason })
  }
}

let clock

beforeEach(() => {
  sockets = []
  globalThis.WebSocket = FakeSocket
  clock = FakeTimers.install({ toFake: ['setTimeout', 'clearTimeout', 'Date'], now: 1_000_000 })
})

afterEach(() => clock.uninstall())

const settled = () => new Promise((resolve) => setImmediate(resolve))

// Fixture is a client and all that it reported.
class Fixture {
  states = []
  messages = []
  answers = []
  refusals = []
  tokens = 0

  constructor(t, ids = ['u']) {
    this.timers = clock
    this.client = new ShoalClient({
      url: 'ws://host/ws/uploads',
      token: async () => ({ token: `token-${++this.tokens}`, expiresAt: Date.now() + this.ttl }),
      onState: (state) => this.states.push(state),
      onUpload: (id, answer) => this.answers.push([id, answer]),
      onMessage: (id, message) => this.messages.push(message.offset ?? message.note),
      onRefused: (id, reason) => this.refusals.push([id, reason]),
    })
    this.ttl = HOUR
    ids.forEach((id) => this.client.follow(id))
    t.after(() => this.client.close())
  }

  get socket() { return sockets.at(-1) }
  get state() { return this.states.at(-1) }

  // live brings the newest socket through authentication.
  async live() {
    await settled()
    this.socket.onopen()
    this.socket.says({ action: 'auth_success', user_id: 'someone' })
    return this.socket
  }

  async reconnect() {
    this.timers.tick(this.state.retryAt - Date.now())
    return this.live()
  }
}

const progress = (offset, id = 'u') => ({ action: 'upload_progress', payload: { upload_id: id }, offset })
const subscribed = (offset, recovered, epoch = 'e') => ({ action: 'subscribed', upload_id: 'u', epoch, offset, recovered })

async function live(t, ids) {
  const f = new Fixture(t, ids)
  f.client.connect()
  await f.live()
  return f
}

test('it authenticates first, then follows', async (t) => {
  const f = await live(t)
  assert.equal(f.socket.protocol, 'shoal.v1')
  assert.deepEqual(f.socket.sent, [{ type: 'auth', token: 'token-1' }, { action: 'subscribe_upload', upload_id: 'u' }])
  assert.deepEqual(f.states.map(({ name }) => name), ['connecting', 'live'])
})

test('what comes before the answer is ignored, and what was seen is not shown again', async (t) => {
  const f = await live(t)
  f.socket.says(progress(6), subscribed(7, false), progress(7), progress(7), progress(5), progress(9))
  assert.deepEqual(f.messages, [7, 9])
})

test('messages without an offset are shown as they come', async (t) => {
  const f = await live(t)
  const other = { action: 'other', upload_id: 'u', note: 'n' }
  f.socket.says(other, subscribed(0, false), other, other)
  assert.deepEqual(f.messages, ['n', 'n'])
})

test('after a reconnect it resumes from where it was', async (t) => {
  const f = await live(t, ['u', 'new'])
  f.socket.says(subscribed(3, false), progress(3), progress(4))
  f.socket.ends(1006)
  const socket = await f.reconnect()
  assert.deepEqual(socket.sent.slice(1), [
    { action: 'subscribe_upload', upload_id: 'new' }, // never answered, so there is no position to resume from
    { action: 'resume', uploads: { u: { epoch: 'e', offset: 4 } } },
  ])
  socket.says(progress(6), { action: 'resumed', uploads: { u: { epoch: 'e', offset: 6, recovered: true } } }, progress(5), progress(6), progress(7))
  assert.deepEqual(f.messages, [3, 4, 5, 6, 7])
})

test('a history that was lost begins anew', async (t) => {
  const f = await live(t)
  f.socket.says(subscribed(9, false), progress(9))
  f.socket.ends(1006)
  const socket = await f.reconnect()
  socket.says({ action: 'resumed', uploads: { u: { epoch: 'f', offset: 0, recovered: false } } }, progress(1), progress(2))
  assert.deepEqual(f.messages, [9, 1, 2])
  socket.says(subscribed(0, false, 'g'), progress(1)) // forgotten while it is followed
  assert.deepEqual(f.messages, [9, 1, 2, 1])
  socket.ends(1006)
  assert.deepEqual((await f.reconnect()).sent[1].uploads, { u: { epoch: 'g', offset: 1 } })
})

test('many uploads are resumed in messages of bounded size', async (t) => {
  const ids = Array.from({ length: 250 }, (_, i) => `upload-${i}`)
  const f = await live(t, ids)
  for (const id of ids) f.socket.says({ ...subscribed(0, false), upload_id: id })
  f.socket.ends(1006)
  const resumed = (await f.reconnect()).sent.slice(1).map(({ uploads }) => Object.keys(uploads))
  assert.deepEqual(resumed.map((some) => some.length), [100, 100, 50])
  assert.deepEqual(resumed.flat(), ids)
})

test('it waits a random part of a delay that doubles up to a bound', async (t) => {
  t.mock.method(Math, 'random', () => 0.5)
  const f = await live(t)
  const delays = []
  for (let i = 0; i < 8; i++) {
    f.socket.ends(1006)
    delays.push(f.state.retryAt - Date.now())
    await f.reconnect() // lives too short to count
  }
  assert.deepEqual(delays, [250, 500, 1000, 2000, 4000, 7500, 7500, 7500])
  f.timers.tick(5_000)
  f.socket.ends(1006)
  assert.equal(f.state.retryAt - Date.now(), 250, 'a connection that held begins a new row')
})

test('it waits as long as the server asks for', async (t) => {
  const f = await live(t)
  f.socket.says({ action: 'reconnect', retry_after_ms: 4321 })
  f.socket.ends(1012, 'Server reloading')
  assert.deepEqual(f.state, { name: 'waiting', retryAt: Date.now() + 4321 })
})

test('it stops where the server says so', async (t) => {
  for (const code of [1000, 1008, 4001, 4002, 4004]) {
    const f = await live(t)
    f.socket.ends(code, 'Why')
    assert.equal(f.state.name, 'stopped', `code ${code}`)
    assert.match(f.state.reason, /\(Why\)$/)
  }
})

test('any other code means to come again', async (t) => {
  for (const code of [1001, 1005, 1006, 1009, 1011, 1012, 1013, 4999]) {
    const f = await live(t)
    f.socket.ends(code)
    assert.equal(f.state.name, 'waiting', `code ${code}`)
  }
})

test('a refused token is replaced once', async (t) => {
  const f = await live(t)
  for (const after of ['connecting', 'stopped']) {
    f.socket.ends(4003, 'Invalid token')
    assert.equal(f.state.name, after)
    await settled()
    f.socket.onopen?.()
  }
  assert.equal(f.tokens, 2)
  assert.deepEqual(f.socket.sent, [{ type: 'auth', token: 'token-2' }])

  f.client.connect() // asked for by hand
  const socket = await f.live()
  assert.equal(f.state.name, 'live')
  socket.ends(4003)
  assert.equal(f.state.name, 'connecting', 'a token that was good may expire')
})

test('a token is renewed in place before it expires', async (t) => {
  const f = await live(t)
  f.timers.tick(60_000)
  f.socket.says({ action: 'ping' })
  assert.deepEqual(f.socket.sent.at(-1), { action: 'pong' })
  for (let minute = 1; minute < 59; minute++) {
    f.timers.tick(60_000)
    f.socket.says({ action: 'ping' })
  }
  await settled()
  assert.deepEqual(f.socket.sent.at(-1), { type: 'auth', token: 'token-2' })
  f.socket.says({ action: 'auth_success', user_id: 'someone' })
  assert.equal(f.socket.sent.filter(({ action }) => action === 'subscribe_upload').length, 1)
})

test('a connection that falls silent is given up', async (t) => {
  const f = await live(t)
  f.timers.tick(74_999)
  assert.equal(f.state.name, 'live')
  f.timers.tick(1)
  assert.equal(f.state.name, 'waiting')
  assert.equal(sockets[0].readyState, 3)
})

test('a server that cannot be reached is tried again', async (t) => {
  const f = new Fixture(t)
  f.client.connect()
  await settled()
  f.timers.tick(10_000) // no answer
  assert.equal(f.state.name, 'waiting')

  f.client.close()
  const g = new ShoalClient({ url: '', token: () => Promise.reject(new Error('no')), onState: (state) => f.states.push(state) })
  await g.connect()
  assert.equal(f.state.name, 'waiting')
  g.close()
})

test('what is refused is followed no longer', async (t) => {
  const f = await live(t)
  f.socket.says({ action: 'error', code: 'forbidden', message: 'not yours', upload_id: 'u' })
  f.socket.says(subscribed(1, false), progress(1))
  assert.deepEqual(f.refusals, [['u', 'not yours']])
  assert.deepEqual(f.messages, [])
})

test('unfollowing and following again', async (t) => {
  const f = await live(t)
  f.socket.says(subscribed(1, false), progress(1))
  f.client.unfollow('u')
  f.socket.says(progress(2), { action: 'unsubscribed', upload_id: 'u' })
  f.client.follow('u')
  f.socket.says(progress(3), subscribed(4, false), progress(4))
  assert.deepEqual(f.messages, [1, 4])
  assert.deepEqual(f.socket.sent.slice(1).map(({ action }) => action), ['subscribe_upload', 'unsubscribe_upload', 'subscribe_upload'])
})

test('a client that was closed stays silent', async (t) => {
  const f = await live(t)
  const { onmessage } = f.socket
  f.client.close()
  assert.equal(f.socket.onmessage, null)
  assert.ok(onmessage)
  const count = f.states.length
  f.timers.tick(HOUR)
  await settled()
  assert.equal(f.states.length, count)
  assert.equal(sockets.length, 1)
})

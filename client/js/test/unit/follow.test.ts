import { describe, expect, test, vi } from 'vitest'
import { FakeSocket, again, hear, installFakes, live, open, pass, progress, resumed, settle, subscribed } from './fakes.js'

installFakes()

async function following(ids = ['u']) {
  const client = open()
  const follows = ids.map((id) => hear(client, id))
  const socket = await live()
  return { client, socket, ...follows[0]! }
}

test('messages before the answer belong to another claim, and none is delivered twice', async () => {
  const { socket, seen } = await following()
  socket.says(progress(6), subscribed(7), progress(7), progress(7), progress(5), progress(9))
  expect(seen).toEqual([7, 9])
})

test('messages without an offset are delivered as they come', async () => {
  const { socket, seen } = await following()
  const own = { action: 'other', upload_id: 'u' }
  socket.says(own, subscribed(0), own, own, progress(3), own)
  expect(seen).toEqual(['other', 'other', 3, 'other'])
})

test('after a reconnect it resumes from where it was', async () => {
  const { client, socket, seen } = await following(['u', 'new'])
  socket.says(subscribed(3), progress(3), progress(4))
  socket.ends()
  expect(client.status('u').state).toBe('pending')
  const next = await again(client)
  expect(next.sent.slice(1)).toEqual([
    { action: 'subscribe_upload', upload_id: 'new' }, // never answered, so there is no position
    { action: 'resume', uploads: { u: { epoch: 'e', offset: 4 } } },
  ])
  next.says(progress(6), resumed(6), progress(5), progress(6), progress(7))
  expect(seen).toEqual([3, 4, 5, 6, 7])
  expect(client.status('u')).toMatchObject({ state: 'live', recovered: true, position: { epoch: 'e', offset: 7 } })
})

describe('a gap', () => {
  test('is reported where the history was lost, before the newest message', async () => {
    const { client, socket, seen } = await following()
    socket.says(subscribed(9), progress(9))
    socket.ends()
    const next = await again(client)
    next.says(resumed(2, false, 'f'), progress(2), progress(3))
    expect(seen).toEqual([9, 'history', 2, 3])
    next.says(subscribed(0, false, 'g'), progress(1)) // forgotten while it is followed
    expect(seen).toEqual([9, 'history', 2, 3, 'history', 1])
    next.ends()
    expect((await again(client)).sent.at(-1).uploads).toEqual({ u: { epoch: 'g', offset: 1 } })
  })

  test('within an epoch does not repeat what was seen', async () => {
    const { client, socket, seen } = await following()
    socket.says(subscribed(9), progress(9))
    socket.ends()
    ;(await again(client)).says(resumed(200, false), progress(200))
    expect(seen).toEqual([9, 'history', 200])
  })

  test('is none for a first subscription', async () => {
    const { socket, seen } = await following()
    socket.says(subscribed(9), progress(9))
    expect(seen).toEqual([9])
  })

  test('is reported for a position of before that the server no longer has', async () => {
    const client = open()
    const seen: string[] = []
    client.follow('u', (m) => seen.push(m.action), { since: { epoch: 'old', offset: 5 } })
    const socket = await live()
    expect(socket.sent[1]).toEqual({ action: 'resume', uploads: { u: { epoch: 'old', offset: 5 } } })
    socket.says(resumed(1, false, 'e'), progress(1))
    expect(seen).toEqual(['shoal.gap', 'upload_progress'])
  })
})

test.each([
  { epoch: 'e', offset: '3' }, { epoch: 'e' }, { epoch: 'e', offset: NaN }, { epoch: 'e', offset: 1.5 }, { epoch: 'e', offset: -1 },
  { epoch: 'e', offset: 2 ** 53 }, { epoch: 'e', offset: 3n }, {}, 'x', { offset: 1 }, { epoch: '', offset: 1 },
  { epoch: '\ud800', offset: 1 }, { epoch: 'é'.repeat(128), offset: 1 },
] as any[])('the position %o, which the server would refuse, is refused and harms no other follow', async (since) => {
  const client = open()
  hear(client)
  expect(() => hear(client, 'v', since)).toThrow(expect.objectContaining({ code: 'bad_option', message: expect.stringMatching(/since/) }))
  expect((await live()).sent.slice(1)).toEqual([{ action: 'subscribe_upload', upload_id: 'u' }])
  expect(client.status('v').state).toBe('idle')
})

test('of a position nothing is sent that the server does not know', async () => {
  const client = open()
  hear(client, 'u', { epoch: 'x'.repeat(255), offset: 0, more: 1 } as any)
  expect((await live()).sent[1]).toEqual({ action: 'resume', uploads: { u: { epoch: 'x'.repeat(255), offset: 0 } } })
})

test.each([NaN, 0, -1])('a buffer of %d is refused', (buffer) => {
  const client = open()
  expect(() => client.follow('u', { buffer })).toThrow(expect.objectContaining({ code: 'bad_option', message: expect.stringMatching(/buffer/) }))
  expect(client.status('u').state).toBe('idle')
})

test('two follows of an upload share a claim, and the second gets the newest message at once', async () => {
  const { client, socket, seen, stop } = await following()
  socket.says(subscribed(1), progress(1))
  const second = hear(client)
  await settle()
  socket.says(progress(2))
  expect([seen, second.seen]).toEqual([[1, 2], [1, 2]])
  stop()
  await settle()
  socket.says(progress(3))
  expect([seen, second.seen]).toEqual([[1, 2], [1, 2, 3]])
  second.stop()
  second.stop()
  await pass(1)
  expect(socket.sent.slice(1).map(({ action }) => action)).toEqual(['subscribe_upload', 'unsubscribe_upload'])
  expect(client.status('u')).toEqual({ state: 'idle' })
})

test('an upload that is let go and taken up in one task stays', async () => {
  const { client, socket, stop } = await following()
  socket.says(subscribed(1), progress(1))
  stop()
  const again = hear(client)
  await pass(10)
  expect(socket.sent.length).toBe(2)
  expect(again.seen).toEqual([1])
})

test('an upload that is let go and taken up later begins with its newest message', async () => {
  const { client, socket, seen, stop } = await following()
  socket.says(subscribed(1), progress(1))
  stop()
  await pass(1)
  const again = hear(client)
  await settle()
  socket.says(progress(2), { action: 'unsubscribed', upload_id: 'u' }, progress(3), subscribed(4), progress(4))
  expect([seen, again.seen]).toEqual([[1], [4]])
  expect(again.errors).toEqual([])
})

test('messages of uploads that are not followed go to onMessage', async () => {
  const others: string[] = []
  open({ onMessage: (m) => others.push(m.action) })
  const socket = await live()
  socket.says({ action: 'notice' }, progress(1, 'other'), { action: 'ping' })
  expect(others).toEqual(['notice', 'upload_progress'])
})

describe('refusals', () => {
  test('end a follow', async () => {
    const { client, socket, seen, errors } = await following()
    const loop = client.follow('u')[Symbol.asyncIterator]().next()
    const failed = expect(loop).rejects.toMatchObject({ code: 'forbidden', message: expect.stringMatching(/"u".*not yours/) })
    socket.says({ action: 'error', code: 'forbidden', message: 'not yours', upload_id: 'u' })
    await failed
    socket.says(subscribed(1), progress(1))
    expect([seen, errors]).toEqual([[], ['forbidden']])
    expect(client.status('u')).toMatchObject({ state: 'ended', error: { code: 'forbidden' } })
    socket.ends()
    expect((await again(client)).sent.length).toBe(1)

    const retried = hear(client) // asks again
    await settle()
    FakeSocket.last.says(subscribed(1), progress(1))
    expect([seen, retried.seen]).toEqual([[], [1]])
  })

  test('may name many uploads', async () => {
    const { client, socket } = await following(['u', 'v', 'w'])
    socket.says({ action: 'error', code: 'limit_exceeded', message: 'too many', upload_ids: ['v', 'w'] })
    expect(['u', 'v', 'w'].map((id) => client.status(id).state)).toEqual(['pending', 'ended', 'ended'])
  })

  test('with a time are repeated then', async () => {
    const { client, socket, seen, errors } = await following()
    socket.says({ action: 'error', code: 'internal', message: 'later', upload_id: 'u', retry_after_ms: 700 })
    await pass(699)
    expect(socket.sent.length).toBe(2)
    await pass(1)
    expect(socket.sent.at(-1)).toEqual({ action: 'subscribe_upload', upload_id: 'u' })
    socket.says({ action: 'error', code: 'internal', message: 'later', upload_id: 'u' })
    await pass(4000)
    expect(socket.sent.length).toBe(4)
    socket.says(subscribed(1), progress(1))
    expect([seen, errors, client.status('u').state]).toEqual([[1], [], 'live'])
  })

  test('of a whole resume are repeated for all', async () => {
    const { client, socket } = await following()
    socket.says(subscribed(1), progress(1))
    socket.ends()
    const next = await again(client)
    next.says({ action: 'error', code: 'internal', message: 'later', retry_after_ms: 100 })
    await pass(100)
    expect(next.sent.slice(1).map(({ action }) => action)).toEqual(['resume', 'resume'])
  })

  test('do not bring back an upload that was let go', async () => {
    const { socket, stop } = await following()
    socket.says({ action: 'error', code: 'internal', message: 'later', upload_id: 'u', retry_after_ms: 700 })
    stop()
    await pass(5000)
    expect(socket.sent.length).toBe(2)
  })

  test('come late when a renewed token no longer allows the upload', async () => {
    const { socket, seen, errors } = await following()
    socket.says(subscribed(1), progress(1), { action: 'unsubscribed', upload_id: 'u' })
    expect([seen, errors]).toEqual([[1], ['forbidden']])
  })
})

describe('many uploads', () => {
  const ids = Array.from({ length: 250 }, (_, i) => `upload-${i}`)

  test('are subscribed and resumed in messages of bounded size', async () => {
    const { client, socket } = await following(ids)
    const batches = (s: FakeSocket) => s.sent.slice(1).map(({ uploads }) => Object.keys(uploads).length)
    expect(batches(socket)).toEqual([100, 100, 50])
    expect(socket.sent[1].uploads['upload-0']).toEqual({ epoch: '', offset: 0 })
    for (const id of ids) socket.says(subscribed(1, false, 'e', id))
    socket.ends()
    expect(batches(await again(client))).toEqual([100, 100, 50])
  })

  test('with the longest ids stay below 64 KiB a message', async () => {
    const { socket } = await following(ids.map((id) => id + '"'.repeat(255 - id.length)))
    for (const message of socket.sent) expect(JSON.stringify(message).length).toBeLessThan(65_536)
  })

  test('are let go at a pace that the server allows', async () => {
    const client = open()
    const stops = ids.map((id) => client.follow(id, () => {}))
    const socket = await live()
    for (const stop of stops) stop()
    await pass(1)
    expect(socket.sent.length).toBeLessThanOrEqual(151)
    await pass(1000)
    expect(socket.sent.length).toBeLessThanOrEqual(191)
    await pass(3000)
    expect(socket.sent.filter(({ action }) => action === 'unsubscribe_upload').length).toBe(250)
  })
})

test.each([['', '""'], ['a\nb', '"a\\nb"'], [7, '7'], [undefined, 'undefined'], ['x'.repeat(256), '"xxx'], ['\ud800', 'ud800'], ['ü'.repeat(128), 'ü']])(
  'the id %j is refused', (id, text) => {
    const client = open()
    expect(() => client.follow(id as string)).toThrow(expect.objectContaining({ code: 'bad_id', message: expect.stringContaining(text) }))
    client.follow('ü'.repeat(127)).stop()
  })

test('an error in a callback is reported and breaks nothing', async () => {
  const { socket, seen, client } = await following()
  const reported: unknown[] = []
  vi.stubGlobal('queueMicrotask', (task: () => void) => {
    try {
      task()
    } catch (error) {
      reported.push(error)
    }
  })
  client.follow('u', () => { throw new Error('mine') })
  client.subscribe(() => { throw new Error('also mine') }, 'u')
  socket.says(subscribed(1), progress(1))
  expect(seen).toEqual([1])
  expect(reported.map(String)).toEqual(['Error: also mine', 'Error: also mine', 'Error: mine'])
})

test('the status of an upload is the same object until it changes', async () => {
  const { client, socket } = await following()
  let changes = 0
  const end = client.subscribe(() => changes++, 'u')
  client.subscribe(() => { throw new Error('of another upload') }, 'v')
  expect(client.status('u')).toBe(client.status('u'))
  socket.says(subscribed(1), progress(1))
  const status = client.status('u')
  expect(status).toEqual({ state: 'live', recovered: false, newest: 1, position: { epoch: 'e', offset: 1 }, message: progress(1) })
  expect(client.status('u')).toBe(status)
  expect(changes).toBe(2)
  end()
  socket.says(progress(2))
  expect(changes).toBe(2)
})

test('a signal ends a follow', async () => {
  const client = open()
  const abort = new AbortController()
  const loop = client.follow('u', { signal: abort.signal })
  const seen: unknown[] = []
  client.follow('u', (m) => seen.push(m), { signal: abort.signal })
  const socket = await live()
  const next = loop.next()
  abort.abort()
  expect(await next).toEqual({ done: true, value: undefined })
  await pass(1)
  expect(socket.sent.at(-1)).toEqual({ action: 'unsubscribe_upload', upload_id: 'u' })
  expect(await client.follow('u', { signal: abort.signal }).next()).toEqual({ done: true, value: undefined })
  expect(seen).toEqual([])
})

test('a follow without since gets the newest message where the first one has continued without any', async () => {
  const client = open()
  const first = hear(client, 'u', { epoch: 'e', offset: 3 })
  const socket = await live()
  socket.says(resumed(3))
  const second = hear(client)
  await settle()
  expect(socket.sent.slice(-2)).toEqual([
    { action: 'unsubscribe_upload', upload_id: 'u' }, { action: 'resume', uploads: { u: { epoch: 'e', offset: 2 } } },
  ])
  socket.says({ action: 'unsubscribed', upload_id: 'u' }, resumed(3), progress(3), progress(4))
  expect([first.seen, second.seen]).toEqual([[4], [3, 4]])
})

test('nothing comes after onError, also if the client follows the upload again and is then allowed', async () => {
  const client = open()
  const seen: unknown[] = []
  const errors: string[] = []
  const stop = client.follow('u', (m) => seen.push(m), {
    since: { epoch: 'e', offset: 1 }, onError: ({ code }) => errors.push(code),
  })
  const socket = await live()
  const refusal = { action: 'error', code: 'forbidden', message: 'no', upload_id: 'u' }
  socket.says(refusal)
  const again = hear(client)
  await settle()
  socket.says(subscribed(3), progress(3), progress(4))
  expect([seen, errors, again.seen]).toEqual([[], ['forbidden'], [3, 4]])
  stop()
  socket.says(progress(5))
  await pass(1)
  expect([client.status('u').state, again.seen]).toEqual(['live', [3, 4, 5]])
})

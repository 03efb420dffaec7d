import { describe, expect, test } from 'vitest'
import type { Follow } from '../../src/index.js'
import { FakeSocket, installFakes, live, open, pass, progress, subscribed } from './fakes.js'

installFakes()

async function following(options: object = {}) {
  const client = open(options)
  const loop: Follow<any> = client.follow('u')
  const socket = await live()
  socket.says(subscribed(0))
  return { client, loop, socket }
}

const event = (n: number) => ({ action: 'line', upload_id: 'u', offset: n })

async function drain(loop: Follow<any>, end: number | string): Promise<any[]> {
  const seen: any[] = []
  for await (const m of loop) {
    seen.push(m)
    if (m.offset === end) break
  }
  return seen
}

test('delivers all in order, waiting or not', async () => {
  const { loop, socket } = await following()
  const early = [loop.next(), loop.next()]
  for (let i = 1; i <= 5; i++) socket.says(progress(i))
  expect((await Promise.all(early)).map(({ value }) => value.offset)).toEqual([1, 2])
  expect((await drain(loop, 5)).map((m) => m.offset)).toEqual([3, 4, 5])
})

test('break lets the upload go', async () => {
  const { client, loop, socket } = await following()
  socket.says(progress(1), progress(2))
  await drain(loop, 1)
  await pass(1)
  expect(socket.sent.at(-1)).toEqual({ action: 'unsubscribe_upload', upload_id: 'u' })
  expect(client.status('u').state).toBe('idle')
  expect(await loop.next()).toEqual({ done: true, value: undefined })
})

test.each(['stop', 'signal', 'close'])('%s drops what waits', async (end) => {
  const { client, socket } = await following()
  const abort = new AbortController()
  const loop = client.follow('u', { signal: abort.signal })
  socket.says(event(1), event(2))
  if (end === 'stop') loop.stop()
  else if (end === 'signal') abort.abort()
  else client.close()
  expect(await loop.next()).toEqual({ done: true, value: undefined })
})

test('an error is thrown once, behind the messages before it', async () => {
  const { loop, socket } = await following()
  socket.says(event(1), { action: 'error', code: 'forbidden', message: 'no', upload_id: 'u' })
  expect((await loop.next()).value.offset).toBe(1)
  await expect(loop.next()).rejects.toMatchObject({ code: 'forbidden' })
  expect((await loop.next()).done).toBe(true)
})

describe('a slow loop', () => {
  test('gets the newest state with the number that it replaced, and every event', async () => {
    const { loop, socket } = await following({ buffer: 4 })
    socket.says(event(1), progress(2), progress(3, 'u', { skipped: 5 }), event(4))
    for (let i = 5; i <= 100; i++) socket.says(progress(i))
    const seen = await drain(loop, 100)
    expect(seen.filter((m) => m.action === 'line').map((m) => m.offset)).toEqual([1, 4])
    expect(seen.some((m) => m.action === 'shoal.gap')).toBe(false)
    const states = seen.filter((m) => m.action === 'upload_progress')
    expect(states.length + states.reduce((sum, m) => sum + (m.skipped ?? 0), 0)).toBe(98 + 5)
  })

  test('is told of events that it lost', async () => {
    const { loop, socket } = await following({ buffer: 4 })
    for (let i = 1; i <= 103; i++) socket.says(event(i))
    const seen = await drain(loop, 103)
    expect(seen[0]).toMatchObject({ action: 'shoal.gap', upload_id: 'u', reason: 'slow' })
    expect(seen.length - 1 + seen[0].lost).toBe(103)
    expect(seen.filter((m) => m.action === 'shoal.gap').length).toBe(1)
  })

  test('of its own size is bounded by it', async () => {
    const { client, socket } = await following()
    const loop = client.follow('u', { buffer: 1 })
    for (let i = 1; i <= 50; i++) socket.says(event(i))
    const seen = await drain(loop, 50)
    expect(seen.map((m) => m.action)).toEqual(['shoal.gap', 'line'])
  })
})

test('is never left waiting', async () => {
  const { client, loop } = await following()
  const waiting = [loop.next(), loop.next(), loop.next()]
  loop.stop()
  expect((await Promise.all(waiting)).every(({ done }) => done)).toBe(true)
  client.follow('u')
  client.close()
  await pass(1)
  expect(FakeSocket.all.length).toBe(1)
})

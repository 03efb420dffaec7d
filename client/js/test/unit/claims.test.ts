// Claims: what is asked of the server when follows begin and end, at a pace that it allows.

import { describe, expect, test } from 'vitest'
import { FakeSocket, again, hear, installFakes, live, open, pass, progress, resumed, settle, subscribed } from './fakes.js'

installFakes()

const event = (offset: number) => ({ action: 'log', upload_id: 'u', offset })
const unsubscribed = { action: 'unsubscribed', upload_id: 'u' }

// asked are the claims that were sent, by their uploads; an unsubscribe has a minus.
const asked = (socket: FakeSocket): string[] => socket.sent.flatMap(({ action, upload_id, uploads }) =>
  action === 'resume' ? Object.keys(uploads) : action === 'unsubscribe_upload' ? [`-${upload_id}`] : upload_id ?? [])

// followMany follows uploads and returns the function that leaves them all.
const followMany = (client: ReturnType<typeof open>, name: string, count = 300) => {
  const stops = Array.from({ length: count }, (_, i) => client.follow(`${name}-${i}`, () => {}))
  return () => { for (const stop of stops) stop() }
}

test('uploads that are followed for a moment do not delay a later one', async () => {
  const client = open()
  const socket = await live()
  for (let i = 0; i < 1000; i++) { // a list that is scrolled
    const stop = client.follow(`row-${i}`, () => {})
    await pass(16)
    stop()
    await pass(1)
  }
  client.follow('u', () => {})
  await pass(1000)
  expect(asked(socket)).toContain('u')
})

test('what is asked stays below the rate of the server, and nothing is forgotten', async () => {
  const client = open()
  const socket = await live()
  const leave = followMany(client, 'a')
  await settle()
  leave()
  followMany(client, 'b')
  for (let seconds = 0; seconds < 10; seconds++) {
    expect(socket.sent.length).toBeLessThanOrEqual(151 + 40 * seconds)
    await pass(1000)
  }
  const left = new Set<string>()
  for (const id of asked(socket)) id.startsWith('-') ? left.delete(id.slice(1)) : left.add(id)
  expect([...left].sort()).toEqual(Array.from({ length: 300 }, (_, i) => `b-${i}`).sort())
})

test('an upload that another one takes the place of is released before that one is claimed', async () => {
  const client = open()
  const stop = client.follow('u', () => {})
  const socket = await live()
  stop()
  client.follow('v', () => {})
  await settle()
  expect(asked(socket)).toEqual(['u', '-u', 'v']) // the server may allow no second one
})

test('an upload whose follow takes the place of another one is kept', async () => {
  const client = open()
  const stop = client.follow('u', () => {})
  const socket = await live()
  stop()
  client.follow('u', () => {})
  await settle()
  expect(asked(socket)).toEqual(['u'])
})

test('an upload that is followed after many were left is claimed within a second', async () => {
  const client = open()
  const socket = await live()
  const leave = followMany(client, 'a')
  await settle()
  leave()
  await pass(1)
  client.follow('u', () => {})
  await pass(1000)
  expect(asked(socket)).toContain('u')
})

test('no more uploads are claimed at once than before, while others wait for their release', async () => {
  const client = open()
  const socket = await live()
  const leave = followMany(client, 'a')
  await settle()
  leave()
  await pass(1)
  followMany(client, 'b')
  await pass(20_000)
  const held = new Set<string>()
  for (const id of asked(socket)) {
    id.startsWith('-') ? held.delete(id.slice(1)) : held.add(id)
    expect(held.size).toBeLessThanOrEqual(300)
  }
  expect(held.size).toBe(300)
})

test('uploads that wait for room are claimed on the next connection', async () => {
  const client = open()
  const socket = await live()
  const leave = followMany(client, 'a', 200)
  await settle()
  leave()
  await pass(1)
  client.follow('u', () => {})
  await settle()
  expect(asked(socket)).not.toContain('u')
  socket.ends()
  expect(asked(await again(client))).toEqual(['u'])
})

test('the answer to a claim that was ended is not that to the next one', async () => {
  const client = open()
  const socket = await live()
  const first = hear(client)
  await settle()
  first.stop()
  await pass(1)
  const second = hear(client)
  await settle()
  expect(asked(socket)).toEqual(['u', '-u', 'u'])
  socket.says(subscribed(1), progress(1), unsubscribed, subscribed(1), progress(1))
  expect([first.seen, second.seen]).toEqual([[], [1]])
})

test('a refusal of a claim that was ended is not that of the next one', async () => {
  const client = open()
  const socket = await live()
  const first = hear(client)
  await settle()
  first.stop()
  await pass(1)
  const second = hear(client)
  await settle()
  socket.says({ action: 'error', code: 'internal', message: 'later', upload_id: 'u', retry_after_ms: 10 }, unsubscribed)
  await pass(1000)
  expect(asked(socket)).toEqual(['u', '-u', 'u'])
  socket.says(subscribed(1), progress(1))
  expect([second.errors, second.seen]).toEqual([[], [1]])
})

describe('since', () => {
  async function ahead() {
    const client = open()
    const first = hear(client)
    const socket = await live()
    socket.says(subscribed(9), event(9))
    return { client, socket, first }
  }

  test('behind a follow of the same upload gets the messages between, and the other follow no repetition', async () => {
    const { client, socket, first } = await ahead()
    const second = hear(client, 'u', { epoch: 'e', offset: 6 })
    await settle()
    expect(socket.sent.slice(2)).toEqual([
      { action: 'unsubscribe_upload', upload_id: 'u' },
      { action: 'resume', uploads: { u: { epoch: 'e', offset: 6 } } },
    ])
    socket.says(event(10), unsubscribed, resumed(10), event(7), event(8), event(9), event(10), event(11))
    expect([first.seen, second.seen]).toEqual([[9, 10, 11], [7, 8, 9, 10, 11]])
    socket.ends()
    expect((await again(client)).sent.at(-1).uploads).toEqual({ u: { epoch: 'e', offset: 11 } })
  })

  test('behind is continued after a reconnect', async () => {
    const { client, socket, first } = await ahead()
    const second = hear(client, 'u', { epoch: 'e', offset: 6 })
    await settle()
    socket.says(unsubscribed, resumed(9), event(7))
    socket.ends()
    const next = await again(client)
    expect(next.sent.at(-1).uploads).toEqual({ u: { epoch: 'e', offset: 7 } })
    next.says(resumed(10), event(8), event(9), event(10))
    expect([first.seen, second.seen]).toEqual([[9, 10], [7, 8, 9, 10]])
  })

  test('behind the history of the server is a gap for that follow alone', async () => {
    const { client, socket, first } = await ahead()
    const second = hear(client, 'u', { epoch: 'e', offset: 2 })
    await settle()
    socket.says(unsubscribed, resumed(9, false), event(9), event(10))
    expect([first.seen, second.seen]).toEqual([[9, 10], ['history', 9, 10]])
  })

  test('behind the history of the server, which no longer has a message either', async () => {
    const { client, socket, first } = await ahead()
    const second = hear(client, 'u', { epoch: 'e', offset: 2 })
    await settle()
    socket.says(unsubscribed, { ...subscribed(9), expired: true }, event(10))
    expect([first.seen, second.seen]).toEqual([[9, 10], ['history', 10]])
  })

  test('in another epoch is a gap, and the newest message follows', async () => {
    const { client, socket, first } = await ahead()
    const second = hear(client, 'u', { epoch: 'former', offset: 9 })
    await settle()
    socket.says(event(10))
    expect([first.seen, second.seen, asked(socket)]).toEqual([[9, 10], ['history', 9, 10], ['u']])
  })

  test('where the follow is asks for nothing', async () => {
    const { client, socket, first } = await ahead()
    const second = hear(client, 'u', { epoch: 'e', offset: 9 })
    await settle()
    socket.says(event(10))
    expect([first.seen, second.seen, asked(socket)]).toEqual([[9, 10], [10], ['u']])
  })

  test('ahead of the follow gets no repetition', async () => {
    const { client, socket, first } = await ahead()
    const second = hear(client, 'u', { epoch: 'e', offset: 10 })
    await settle()
    socket.says(event(10), event(11))
    expect([first.seen, second.seen, asked(socket)]).toEqual([[9, 10, 11], [11], ['u']])
  })

  test('of a second follow before the answer counts too', async () => {
    const client = open()
    const socket = await live()
    const first = hear(client)
    await settle()
    const second = hear(client, 'u', { epoch: 'e', offset: 6 })
    await settle()
    expect(asked(socket)).toEqual(['u', '-u', 'u'])
    socket.says(subscribed(8), event(8), unsubscribed, resumed(8), event(7), event(8))
    expect([first.seen, second.seen]).toEqual([[8], [7, 8]])
  })
})

describe('an answer without recovery', () => {
  test('whose newest message has not come is resumed just before that', async () => {
    const client = open()
    const { seen } = hear(client)
    const socket = await live()
    socket.says(subscribed(5))
    expect(client.status('u').position).toEqual({ epoch: 'e', offset: 4 })
    socket.ends()
    const next = await again(client)
    expect(next.sent.at(-1).uploads).toEqual({ u: { epoch: 'e', offset: 4 } })
    next.says(resumed(6), event(5), event(6))
    expect(seen).toEqual([5, 6])
  })

  test('whose newest message is no longer held has its position at once', async () => {
    const client = open()
    const { seen } = hear(client)
    const socket = await live()
    socket.says({ ...subscribed(3), expired: true })
    expect(client.status('u').position).toEqual({ epoch: 'e', offset: 3 })
    socket.ends()
    const next = await again(client)
    expect(next.sent.at(-1).uploads).toEqual({ u: { epoch: 'e', offset: 3 } })
    next.says(resumed(5), event(4), event(5))
    expect(seen).toEqual([4, 5])
  })

  test('may be followed by a newest message whose offset is lower', async () => {
    const client = open()
    const { seen } = hear(client)
    const socket = await live()
    socket.says(subscribed(9), event(6), event(6), event(10))
    expect(seen).toEqual([6, 10])
  })

  test('in another epoch takes the former message away from later follows', async () => {
    const client = open()
    const first = hear(client)
    const socket = await live()
    socket.says(subscribed(9), event(9), { ...subscribed(2, false, 'f'), expired: true })
    const second = hear(client)
    await settle()
    expect([first.seen, second.seen, client.status('u').message]).toEqual([[9, 'history'], [], undefined])
  })
})

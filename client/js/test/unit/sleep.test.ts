// A computer that sleeps: its timers stand still, and its clock does not.

import { expect, test, vi } from 'vitest'
import { installFakes, live, open, pass } from './fakes.js'

installFakes()

const sleep = (ms: number) => vi.setSystemTime(Date.now() + ms)

test('a computer that has slept has its connection tested soon, and gives it up without an answer', async () => {
  const client = open()
  const socket = await live()
  sleep(3_600_000)
  await pass(10_000)
  expect(socket.sent.at(-1)).toEqual({ action: 'resume', uploads: {} })
  await pass(5000)
  expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'unreachable' } })
})

test('a computer that has slept keeps a connection whose server answers', async () => {
  const client = open()
  const socket = await live()
  for (let i = 1; i <= 3; i++) {
    sleep(3_600_000)
    await pass(10_000)
    expect(socket.sent.length).toBe(1 + i)
    socket.says({ action: 'resumed', uploads: {} })
  }
  await pass(20_000)
  expect([client.status().state, socket.sent.length]).toEqual(['live', 4])
})

test.each([
  ['a hidden page, whose timers run once a minute', 50_000], ['a clock that is set back', -3_600_000],
])('%s is not taken for a sleep', async (_, ms) => {
  const client = open()
  const socket = await live()
  for (let i = 0; i < 6; i++) {
    sleep(ms)
    await pass(10_000)
    socket.says({ action: 'ping' })
  }
  expect([client.status().state, socket.sent.filter(({ action }) => action === 'resume')]).toEqual(['live', []])
})

// A server that says anything, in random order with what a good one says, while the program follows, stops and reconnects.

import { expect, test, vi } from 'vitest'
import type { Position, Shoal, UploadStatus } from '../../src/index.js'
import { installBrowser, newTab, rest } from './browser.js'
import { FakeSocket, installFakes, open, pass, settle } from './fakes.js'

installFakes()
installBrowser()

const ROUNDS = 80
const STEPS = 60
const VALUES: unknown[] = [
  null, 0, 1, -1, 1.5, 1e308, '', 'u', 'v', 'e', [], ['u'], {}, { toString: 7 }, { u: null }, true, 'x'.repeat(300), '__proto__',
  { u: { epoch: 'e', offset: 2, recovered: true } }, { v: { epoch: 'f', offset: '9' } },
]
// Chance draws the same values for the same seed.
class Chance {
  constructor(private seed: number) {}

  next(): number {
    this.seed = (this.seed * 1103515245 + 12345) & 0x7fffffff
    return this.seed / 0x7fffffff
  }

  below(n: number): number {
    return Math.floor(this.next() * n)
  }

  pick<T>(all: T[]): T {
    return all[this.below(all.length)]!
  }

  // message is one of a good server, one of whose members may have any value, or no message at all.
  message(): object | string {
    if (this.below(20) === 0) return this.pick(['', '{', 'null', '[]', '7'])
    const upload_id = this.pick(['u', 'v', 'w'])
    const answer = { epoch: this.pick(['e', 'f']), offset: this.below(20), recovered: this.below(2) > 0 }
    const message = this.pick<object>([
      { action: 'subscribed', upload_id, ...answer }, { action: 'resumed', uploads: { [upload_id]: answer } },
      { action: 'own', upload_id, offset: this.below(25) }, { action: 'unsubscribed', upload_id }, { action: 'ping' },
      { action: 'error', upload_id, code: 'internal', message: 'later', retry_after_ms: 10 }, { action: 'auth_success', user_id: 'ann' },
      { action: 'auth_error', code: 'expired', message: 'over' }, { action: 'reconnect', retry_after_ms: 10 },
    ])
    return this.below(3) ? message : { ...message, [this.pick(Object.keys({ ...message, payload: 0 }))]: this.pick(VALUES) }
  }
}

// act has the program do something.
async function act(chance: Chance, client: Shoal<any>, stops: (() => void)[]): Promise<void> {
  const since = chance.below(3) === 0 ? { epoch: chance.pick(['e', 'f']), offset: chance.below(10) } : undefined
  await chance.pick([
    () => { stops.push(client.follow(chance.pick(['u', 'v']), () => {}, { since })) },
    () => { stops.splice(chance.below(stops.length), 1)[0]?.() },
    () => client.reconnect(),
    async () => { await pass(chance.pick([1, 100, 1000, 30_000])) },
  ])()
}

// serve has the server do something.
function serve(chance: Chance, socket: FakeSocket): void {
  if (socket.readyState === 0) {
    socket.opens(chance.below(20) ? 'shoal.v1' : '')
    if (chance.below(4)) socket.says({ action: 'auth_success', user_id: 'ann' })
  } else if (socket.readyState === 1) {
    if (chance.below(20)) socket.says(chance.message())
    else socket.ends(chance.pick([1000, 1006, 1008, 1012, 1013, 4001, 4003]))
  }
}

const isPosition = ({ epoch, offset }: Position) =>
  typeof epoch === 'string' && epoch.length < 256 && Number.isSafeInteger(offset) && offset >= 0

test.each(['alone', 'in tabs'])('nothing throws, no position is spoilt, and nothing is left behind: %s', async (how) => {
  const rejected = vi.fn()
  process.on('unhandledRejection', rejected)
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const chance = new Chance(seed)
    const client = how === 'alone' ? open({ maxDelay: 100 }) : newTab({ maxDelay: 100 }).client
    const stops: (() => void)[] = []
    for (let step = 0; step < STEPS; step++) {
      if (chance.below(4) === 0) await act(chance, client, stops)
      else if (FakeSocket.all.length > 0) serve(chance, FakeSocket.last)
      await settle()
      const positions = ['u', 'v'].flatMap((id) => (client.status(id) as UploadStatus).position ?? [])
      expect(positions.filter((at) => !isPosition(at)), `seed ${seed}`).toEqual([])
    }
    client.close()
    await rest()
    expect([vi.getTimerCount(), client.status()], `seed ${seed}`).toEqual([0, { state: 'closed' }])
    FakeSocket.all = []
  }
  process.off('unhandledRejection', rejected)
  expect(rejected).not.toHaveBeenCalled()
}, 60_000)

// Tabs in random order of all that can happen to them. Each follow has to see what it would see with a connection of its
// own: the newest message or all after its position, then each message once and in order, and a gap where the server no
// longer has the messages.

import { expect, test, vi } from 'vitest'
import type { Position } from '../../src/index.js'
import { FakeChannel, type FakeTab, freeze, installBrowser, newTab, rest } from './browser.js'
import { FakeSocket, installFakes, pass } from './fakes.js'
import { FakeServer } from './server.js'

installFakes()
installBrowser()

const RUNS = Number(process.env.SHOAL_TEST_RUNS ?? 60)
const FIRST = Number(process.env.SHOAL_TEST_SEED ?? 1)
const IDS = ['u', 'v']

// random returns a function that draws a number from 0 to below n, the same ones for the same seed.
function random(seed: number): (n: number) => number {
  return (n) => {
    seed = (seed * 1_664_525 + 1_013_904_223) % 2 ** 32
    return Math.floor(seed / 2 ** 32 * n)
  }
}

interface Heard { id: string; since: Position | undefined; from: number; seen: string[]; ended: boolean; stop: () => void }
interface Page { tab: FakeTab; away: boolean; closed: boolean; follows: Heard[] }

class World {
  readonly server = new FakeServer()
  readonly pages: Page[] = []
  readonly log: string[] = []
  thaws: (() => void)[] = []
  lossy = false // the server has lost messages: gaps are allowed

  constructor(readonly draw: (n: number) => number) {}

  one<T>(list: T[]): T | undefined {
    return list[this.draw(list.length)]
  }

  open(): Page {
    const page: Page = { tab: newTab({ maxDelay: 1000 }), away: false, closed: false, follows: [] }
    this.pages.push(page)
    return page
  }

  // follow begins a follow. While the page is in the back/forward cache nothing of it runs.
  follow(page: Page, within = false): void {
    const id = this.one(IDS)!
    const { epoch, top, base } = this.server.topic(id)
    const since = this.draw(2) && top > base ? { epoch, offset: base + this.draw(top - base + 1) } : undefined
    const [socket, other] = this.server.open()
    const status = page.tab.client.status(id)
    // A second follow of a client begins with the newest message that the first one has brought.
    const from = socket && !other && status.state === 'idle' ? this.server.delivered(socket, id) : status.message?.offset ?? 0
    const heard: Heard = { id, since, from, seen: [], ended: false, stop: () => { throw new Error('called within follow()') } }
    this.log.push(`follow ${this.pages.indexOf(page)} ${id} ${since?.offset}`)
    page.follows.push(heard)
    const stop = page.tab.client.follow(id, (m: any) => {
      expect([heard.ended, page.closed], 'a call after the end').toEqual([false, false])
      heard.seen.push(m.action === 'shoal.gap' ? 'gap' : `${m.epoch}:${m.offset}`)
      if (within || m.action === 'shoal.gap' || this.draw(40)) return
      if (this.draw(3) === 0) this.stop(page, heard)
      else if (this.draw(4) === 0) this.close(page)
      else this.follow(page, true)
    }, since && { since })
    heard.stop = stop
  }

  stop(page: Page, heard: Heard): void {
    this.log.push(`stop ${this.pages.indexOf(page)} ${page.follows.indexOf(heard)}`)
    heard.stop()
    heard.ended = true
  }

  close(page: Page): void {
    this.log.push(`close ${this.pages.indexOf(page)}`)
    page.tab.client.close()
    page.closed = true
  }

  async step(): Promise<void> {
    const { server } = this
    const page = this.one(this.pages.filter(({ closed, away }) => !closed && !away))
    const socket = this.one(server.open())
    switch (this.draw(24)) {
      case 0: if (this.pages.filter(({ closed }) => !closed).length < 4) this.open()
        break
      case 1: case 2: case 3: if (page) this.follow(page)
        break
      case 4: {
        const heard = page && this.one(page.follows.filter(({ ended }) => !ended))
        if (heard) this.stop(page, heard)
        break
      }
      case 5: if (page && this.draw(3) === 0) this.close(page)
        break
      case 6: if (page) {
        this.log.push(`away ${this.pages.indexOf(page)}`)
        page.away = true
        page.tab.away()
      }
        break
      case 7: {
        const gone = this.one(this.pages.filter(({ away }) => away))
        if (gone) {
          this.log.push(`back ${this.pages.indexOf(gone)}`)
          gone.away = false
          gone.tab.back()
        } else page?.tab.back()
        break
      }
      case 8: if (socket) {
        this.log.push('cut')
        server.end(socket, this.draw(2) ? 1006 : 1012)
      }
        break
      case 9: if (this.thaws.length === 0) {
        this.log.push('freeze')
        const { robbed, thaw } = freeze()
        this.thaws.push(...(this.draw(2) ? [robbed, thaw] : [thaw, robbed]))
      } else {
        this.log.push('thaw')
        for (const thaw of this.thaws.splice(0)) {
          thaw()
          if (this.draw(2)) await rest()
        }
      }
        break
      case 10:
        this.log.push('wait')
        await pass(this.draw(2) ? 6000 : 40_000)
        break
      case 11: if (this.lossy) {
        const id = this.one(IDS)!
        this.log.push(`evict ${id}`)
        server.evict(id)
      }
        break
      case 12: if (this.lossy && this.draw(4) === 0) {
        this.log.push('restart')
        server.restart()
      }
        break
      case 13: case 14: case 15: case 16: {
        const id = this.one(IDS)!
        this.log.push(`publish ${id}`)
        server.publish(id)
        break
      }
      case 17: await pass(1 + this.draw(300))
        break
      case 18: if (this.draw(4) === 0) {
        this.log.push('clock')
        vi.setSystemTime(Date.now() + (this.draw(3) - 1) * 3_600_000)
      }
        break
      default: // the sockets go on, by some steps or until nothing waits
        for (let n = this.draw(2) ? this.draw(4) : 1000; n > 0 && server.open().some((socket) => server.turn(socket)); n--) {
          if (this.draw(2)) await rest()
        }
    }
    if (this.draw(3)) await rest()
  }

  // finish has all go well, until each open tab has what it wants.
  async finish(): Promise<void> {
    this.log.push('finish')
    for (const thaw of this.thaws) thaw()
    for (const page of this.pages) if (page.away) {
      page.away = false
      page.tab.back()
    }
    for (let s = 0; s < 100; s++) {
      await rest()
      for (const socket of this.server.open()) while (this.server.turn(socket)) await rest()
      await rest()
      for (const socket of this.server.open()) if (socket.readyState === 1) socket.says({ action: 'ping' })
      await pass(1000)
    }
  }

  check(): void {
    const open = this.pages.filter(({ closed }) => !closed)
    const wanted = new Set<string>()
    for (const { tab, follows } of open) {
      expect(tab.client.status().state).toBe('live')
      for (const heard of follows) if (!heard.ended) {
        const { epoch, top } = this.server.topic(heard.id)
        wanted.add(heard.id)
        expect(tab.client.status(heard.id), heard.id).toMatchObject({ state: 'live', position: { epoch, offset: top } })
        const last = heard.seen.at(-1)
        if (top > (heard.since?.epoch === epoch ? heard.since.offset : 0)) expect(last).toBe(`${epoch}:${top}`)
      }
    }
    for (const { follows } of this.pages) for (const heard of follows) this.checkOrder(heard)
    const sockets = this.server.open()
    expect(sockets.length).toBe(open.length > 0 ? 1 : 0)
    if (sockets[0]) expect(this.server.subscribed(sockets[0])).toEqual([...wanted].sort())
  }

  checkOrder({ since, from, seen }: Heard): void {
    if (!this.lossy) expect(seen).not.toContain('gap')
    let at = since && { ...since }
    for (const entry of seen) {
      if (entry === 'gap') {
        at = undefined
        continue
      }
      const [epoch, offset] = [entry.split(':')[0]!, Number(entry.split(':')[1])]
      if (at) expect(entry, 'the next one').toBe(`${at.epoch}:${at.offset + 1}`)
      else if (!this.lossy) expect(offset, 'the newest one').toBeGreaterThanOrEqual(from)
      at = { epoch, offset }
    }
  }
}

test('each follow sees in tabs that share a connection what it would see alone', async () => {
  for (let seed = FIRST; seed < FIRST + RUNS; seed++) {
    const draw = random(seed)
    vi.spyOn(Math, 'random').mockImplementation(() => draw(1000) / 1000)
    FakeSocket.all = []
    FakeChannel.all.clear()
    const world = new World(draw)
    world.lossy = seed % 3 === 0
    try {
      world.open()
      for (let n = 20 + draw(100); n > 0; n--) await world.step()
      await world.finish()
      world.check()
    } catch (error) {
      const follows = world.pages.map(({ follows, closed }, i) => `${i}${closed ? ' closed' : ''}: ${follows.map((f) => `${f.id}(${f.since?.offset})${f.seen}`).join(' | ')}`)
      ;(error as Error).message += `\nseed ${seed}\n${follows.join('\n')}\n${world.log.join(', ')}`
      throw error
    } finally {
      for (const page of world.pages) page.tab.client.close()
      for (const thaw of world.thaws) thaw()
      await rest()
    }
  }
}, 600_000)

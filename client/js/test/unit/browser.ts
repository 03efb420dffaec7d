// Several tabs of one origin in one process: their locks, their channel, and the events of their pages.

import { beforeEach, expect, vi } from 'vitest'
import { tabs } from '../../src/tabs.js'
import type { Options, Shoal } from '../../src/index.js'
import { type FakeSocket, hear, live, open, pass, progress, settle, subscribed } from './fakes.js'

type Request = { name: string; action: () => unknown; resolve: (value: unknown) => void; reject: (error: Error) => void }

// FakeLocks are Web Locks. Between the tabs nothing orders a request and a message but what the tabs wait for.
export class FakeLocks {
  held = new Map<string, Request>()
  #waiting: Request[] = []
  // The requests of names in which this is found wait until release.
  #delayed: (() => void)[] | undefined
  refused: string | undefined // the name of the error of each request

  async request(name: string, { signal, steal }: { signal?: AbortSignal; steal?: boolean }, action: () => unknown) {
    if (this.refused) throw new DOMException('no locks here', this.refused)
    signal?.throwIfAborted()
    if (this.#delayed) await new Promise<void>((resolve) => this.#delayed!.push(resolve))
    return new Promise<unknown>((resolve, reject) => {
      const request = { name, action, resolve, reject }
      signal?.addEventListener('abort', () => {
        const i = this.#waiting.indexOf(request)
        if (i < 0) return
        this.#waiting.splice(i, 1)
        reject(signal.reason)
      })
      const robbed = steal && this.held.get(name)
      if (robbed) {
        this.held.delete(name)
        this.#waiting.unshift(request)
        robbed.reject(new DOMException('stolen', 'AbortError'))
      } else this.#waiting.push(request)
      this.#grant(name)
    })
  }

  #grant(name: string): void {
    const i = this.#waiting.findIndex((request) => request.name === name)
    if (this.held.has(name) || i < 0) return
    const [request] = this.#waiting.splice(i, 1) as [Request]
    this.held.set(name, request)
    queueMicrotask(async () => {
      request.resolve(await request.action())
      if (this.held.get(name) !== request) return
      this.held.delete(name)
      this.#grant(name)
    })
  }

  // delaying has the requests that action makes wait. It returns the function that lets them go on.
  delaying(action: () => void): () => void {
    const delayed: (() => void)[] = this.#delayed = []
    action()
    this.#delayed = undefined
    return () => delayed.forEach((go) => go())
  }
}

export class FakeChannel {
  static all = new Set<FakeChannel>()
  static refused = false
  onmessage: ((event: { data: any }) => void) | null = null
  term = 0 // of the last message that its tab sent as the leader
  // While it is set, messages wait here.
  frozen: { data: any }[] | undefined

  constructor(readonly name: string) {
    if (FakeChannel.refused) throw new DOMException('no channels here', 'SecurityError')
    FakeChannel.all.add(this)
  }

  postMessage(data: any): void {
    if (data.term) this.term = data.term
    for (const other of FakeChannel.all) {
      if (other !== this && other.name === this.name) queueMicrotask(() => other.#receive({ data: structuredClone(data) }))
    }
  }

  #receive(event: { data: any }): void {
    if (!FakeChannel.all.has(this)) return
    if (this.frozen) this.frozen.push(event)
    else this.onmessage?.(event)
  }

  thaw(): void {
    const events = this.frozen ?? []
    this.frozen = undefined
    events.forEach((event) => this.#receive(event))
  }

  close(): void {
    FakeChannel.all.delete(this)
  }
}

// freeze has the tab that leads hear nothing. It returns functions that let it hear of its robbed lock and of messages.
export function freeze(): { robbed(): void; thaw(): void } {
  const channels = [...FakeChannel.all].filter(({ term }) => term > 0).sort((a, b) => b.term - a.term)
  const held = [...locks.held].find(([name]) => name.endsWith(' ann'))?.[1]
  if (!channels[0] || !held || channels[0].frozen) return { robbed() {}, thaw() {} }
  const [channel] = channels
  const { reject } = held
  let error: Error | undefined
  channel.frozen = []
  held.reject = (given) => { error = given }
  return {
    robbed() {
      held.reject = reject
      if (error) reject(error)
    },
    thaw: () => channel.thaw(),
  }
}

// FakeTab is a tab with a client that shares the connection of the others.
export interface FakeTab {
  client: Shoal<any>
  /** The page goes into the back/forward cache. */
  away(): void
  /** The page or the network comes back. */
  back(): void
}

// listeners are those of the pages' events: one of each tab and one of each session.
const listeners = new Set<(event: { type: string }) => void>()

export let locks: FakeLocks

export function installBrowser(): void {
  beforeEach(() => {
    listeners.clear()
    vi.stubGlobal('addEventListener', (_: string, listener: any, { signal }: { signal: AbortSignal }) => {
      listeners.add(listener)
      signal.addEventListener('abort', () => listeners.delete(listener))
    })
    FakeChannel.all.clear()
    FakeChannel.refused = false
    locks = new FakeLocks()
    vi.stubGlobal('navigator', { locks })
    vi.stubGlobal('BroadcastChannel', FakeChannel)
  })
}

export function newTab(options: Partial<Options<any>> = {}): FakeTab {
  const former = listeners.size
  const client = open({ share: tabs('ann'), ...options })
  const listener = [...listeners][former]! // that of its session follows when the tab leads
  return { client, away: () => listener({ type: 'pagehide' }), back: () => listener({ type: 'online' }) }
}

// rest lets locks, messages and promises go on; no time passes.
export async function rest(): Promise<void> {
  for (let i = 0; i < 20; i++) await settle()
}

// asked returns what a socket was asked for since the last call.
export function asked(socket: FakeSocket): string[] {
  return socket.sent.splice(0).flatMap(({ action, upload_id, uploads }) => {
    if (action === 'resume') return Object.entries<any>(uploads).map(([id, at]) => `${id} since ${at.offset}`)
    return upload_id ? [action === 'subscribe_upload' ? upload_id : `not ${upload_id}`] : []
  })
}

// leading returns a tab that has the connection and follows an upload, with its socket.
export async function leading(id = 'lead'): Promise<{ tab: FakeTab; seen: unknown[]; socket: FakeSocket }> {
  const tab = newTab()
  await rest()
  const { seen } = hear(tab.client, id)
  const socket = await live()
  await rest()
  socket.says(subscribed(0, false, 'e', id))
  await rest()
  asked(socket)
  return { tab, seen, socket }
}

// following returns a tab that follows an upload which the tab that leads does not.
export async function following(socket: FakeSocket, id = 'u') {
  const tab = newTab()
  const { seen } = hear(tab.client, id)
  await rest()
  expect(asked(socket)).toEqual([id])
  socket.says(subscribed(0, false, 'e', id), progress(1, id))
  await rest()
  expect([tab.client.status(id).state, seen]).toEqual(['live', [1]])
  return { tab, seen }
}

// alive lets time pass on a connection on which the server says something.
export async function alive(socket: FakeSocket, seconds: number): Promise<void> {
  for (let s = 0; s < seconds; s += 10) {
    socket.says({ action: 'ping' })
    await pass(10_000)
    await rest()
  }
}

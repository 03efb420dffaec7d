// Several tabs of one origin in one process: their locks, their channel, and the events of their pages.

import { beforeEach, vi } from 'vitest'
import { tabs } from '../../src/tabs.js'
import type { Options, Shoal } from '../../src/index.js'
import { open, settle } from './fakes.js'

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
  // While it is set, messages wait here.
  frozen: { data: any }[] | undefined

  constructor(readonly name: string) {
    if (FakeChannel.refused) throw new DOMException('no channels here', 'SecurityError')
    FakeChannel.all.add(this)
  }

  postMessage(data: unknown): void {
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
    const events = this.frozen!
    this.frozen = undefined
    events.forEach((event) => this.#receive(event))
  }

  close(): void {
    FakeChannel.all.delete(this)
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

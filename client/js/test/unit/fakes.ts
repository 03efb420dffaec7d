// A WebSocket that says what a test wants, in time that the test turns.

import { afterEach, beforeEach, expect, vi } from 'vitest'
import { type Message, type Options, type Position, type Shoal, connect } from '../../src/index.js'

export class FakeSocket {
  static all: FakeSocket[] = []
  static next = { protocol: 'shoal.v1' }
  readyState = 0
  protocol = ''
  sent: any[] = []
  onopen: (() => void) | null = null
  onmessage: ((event: { data: unknown }) => void) | null = null
  onclose: ((event: { code: number; reason: string }) => void) | null = null
  onerror: (() => void) | null = null
  closedWith: number | undefined

  constructor(readonly url: string | URL, readonly asked: string) {
    FakeSocket.added(this)
  }

  // added is called by the constructor: a test may have it throw.
  static added(socket: FakeSocket): void {
    FakeSocket.all.push(socket)
  }

  static get last(): FakeSocket {
    return FakeSocket.all.at(-1)!
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text))
  }

  close(code: number): void {
    this.readyState = 3
    this.closedWith = code
  }

  opens(protocol = 'shoal.v1'): void {
    this.readyState = 1
    this.protocol = protocol
    this.onopen?.()
  }

  says(...messages: unknown[]): void {
    for (const message of messages) this.onmessage?.({ data: typeof message === 'string' ? message : JSON.stringify(message) })
  }

  fails(): void {
    this.onerror?.()
  }

  ends(code = 1006, reason = ''): void {
    this.readyState = 3
    this.onclose?.({ code, reason })
  }
}

const clients: Shoal<any>[] = []

export function installFakes(): void {
  beforeEach(() => {
    FakeSocket.all = []
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'], now: 1_000_000_000_000 })
    vi.stubGlobal('WebSocket', FakeSocket)
    // A pause that is drawn close to 0 is over before a test looks at what has led to it.
    const { random } = Math
    vi.spyOn(Math, 'random').mockImplementation(() => (1 + random()) / 2)
  })
  afterEach(() => {
    for (const client of clients.splice(0)) client.close()
    expect(vi.getTimerCount()).toBe(0)
    vi.useRealTimers()
    vi.unstubAllGlobals()
    vi.restoreAllMocks()
  })
}

export function open(options: Partial<Options<any>> = {}, url = 'wss://host/ws/uploads'): Shoal<any> {
  let tokens = 0
  const client = connect<any>(url, { token: () => `token-${++tokens}`, sse: false, ...options })
  clients.push(client)
  return client
}

// settle lets promises go on; no time passes.
export const settle = () => vi.advanceTimersByTimeAsync(0)
export const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms)

// live brings the newest socket through authentication.
export async function live(): Promise<FakeSocket> {
  await settle()
  const socket = FakeSocket.last
  socket.opens()
  socket.says({ action: 'auth_success', user_id: 'ann' })
  await settle()
  return socket
}

// again waits for the next attempt, and brings it through authentication.
export async function again(client: Shoal<any>): Promise<FakeSocket> {
  await pass(Math.max(0, (client.status().retryAt ?? 0) - Date.now()))
  return live()
}

export const progress = (offset?: number, id = 'u', more: object = {}) =>
  ({ action: 'upload_progress', payload: { upload_id: id, progress_percent: offset ?? 0 }, ...(offset !== undefined && { offset }), ...more })
export const subscribed = (offset: number, recovered = false, epoch = 'e', id = 'u') =>
  ({ action: 'subscribed', upload_id: id, epoch, offset, recovered })
export const resumed = (offset: number, recovered = true, epoch = 'e', id = 'u') =>
  ({ action: 'resumed', uploads: { [id]: { epoch, offset, recovered } } })

// heard is a follow with a callback that keeps the offsets, and gaps as their reason.
export function hear(client: Shoal<any>, id = 'u', since?: Position): { seen: (number | string)[]; errors: string[]; stop: () => void } {
  const seen: (number | string)[] = []
  const errors: string[] = []
  const stop = client.follow(id, (m: Message<any>) => seen.push(m.action === 'shoal.gap' ? (m as any).reason : m.offset ?? m.action), {
    onError: (error) => errors.push(error.code), ...(since && { since }),
  })
  return { seen, errors, stop }
}

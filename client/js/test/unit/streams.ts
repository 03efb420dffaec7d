// A fetch that answers what a test says.

import { expect, vi } from 'vitest'
import type { Shoal } from '../../src/index.js'
import '../../src/sse.js' // here, so that no test waits until it has been read
import { FakeSocket, hear, open, pass, settle } from './fakes.js'

// Stream is one request.
export class Stream {
  static all: Stream[] = []
  static questions: Stream[] = [] // whether the server is Shoal
  static shoal = true
  readonly headers: Record<string, string>
  readonly signal: AbortSignal
  #answer!: (response: Response) => void
  #fail!: (error: Error) => void
  #body!: ReadableStreamDefaultController<Uint8Array>
  readonly response: Promise<Response>

  constructor(readonly url: string, init: { headers: Record<string, string>; signal: AbortSignal }) {
    this.headers = init.headers
    this.signal = init.signal
    this.response = new Promise((resolve, reject) => {
      this.#answer = resolve
      this.#fail = reject
    })
    init.signal.addEventListener('abort', () => {
      this.#fail(new Error('aborted'))
      try { this.#body?.error(new Error('aborted')) } catch {}
    })
    if (init.signal.aborted) this.#fail(new Error('aborted'))
    else if (!/[?&]id=/.test(url) && Stream.shoal) {
      Stream.questions.push(this)
      void this.refuses(400, { field: 'id', detail: 'is missing' })
    } else Stream.all.push(this)
  }

  static get last(): Stream {
    return Stream.all.at(-1)!
  }

  // answers begins an answer whose body has no end yet.
  async answers(how: ResponseInit): Promise<void> {
    const body = new ReadableStream<Uint8Array>({ start: (controller) => { this.#body = controller } })
    this.#answer(new Response(body, how))
    await settle()
  }

  async opens(...messages: object[]): Promise<void> {
    await this.answers({ headers: { 'Content-Type': 'text/event-stream' } })
    await this.says(...messages)
  }

  async says(...messages: object[]): Promise<void> {
    await this.sends(messages.map((m) => `id: x\ndata: ${JSON.stringify(m)}\n\n`).join(''))
  }

  async sends(text: string | Uint8Array): Promise<void> {
    this.#body.enqueue(typeof text === 'string' ? new TextEncoder().encode(text) : text)
    await settle()
  }

  // closes sends the last event of a stream.
  async closes(code: number, reason: string): Promise<void> {
    await this.sends(`event: close\ndata: ${JSON.stringify({ code, reason })}\n\n`)
  }

  async ends(): Promise<void> {
    this.#body.close()
    await settle()
  }

  async refuses(status: number, problem: object | string = {}, headers: Record<string, string> = {}): Promise<void> {
    const text = typeof problem === 'string' ? problem : JSON.stringify(problem)
    this.#answer(new Response(text, { status, headers: { 'Content-Type': 'application/problem+json', ...headers } }))
    await settle()
  }

  async breaks(): Promise<void> {
    this.#fail(new Error('network down'))
    await settle()
  }
}

let made: Shoal<any>

// blocked is a client whose sockets never open, with its first stream asked for.
export async function blocked(ids = ['u'], options: object = {}, shoal = true, url?: string) {
  Stream.all = []
  Stream.questions = []
  Stream.shoal = shoal
  vi.stubGlobal('fetch', (url: URL, init: any) => new Stream(String(url), init).response)
  const client = open({ sse: true, ...options }, url)
  made = client
  const follows = ids.map((id) => hear(client, id))
  for (let i = 0; i < 2; i++) {
    await settle()
    FakeSocket.last.ends()
    await pass(Math.max(client.status().retryAt! - Date.now(), 0))
  }
  await vi.waitFor(async () => {
    await pass(20)
    expect(Stream.all.length).toBe(1)
  })
  return { client, ...follows[0]! }
}

// newest returns the newest client of blocked, also where that throws because there is not one stream.
export const newest = (): Shoal<any> => made

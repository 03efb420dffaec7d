// What the tests against real servers stand on: the server, tokens, and a proxy that can be cut, slowed and frozen.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { existsSync } from 'node:fs'
import { type AddressInfo, type Socket, connect as dial, createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { ConnectionStatus, Follow, Shoal } from '../../src/index.js'

const BINARY = process.env.SHOAL_BIN ?? fileURLToPath(new URL('../../../../bin/shoal', import.meta.url))
const SECRET = 'a-secret-of-the-tests-which-is-long-enough'

// FLAGS start Chromium without a screen and without talking to anybody else.
export const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
]

// Server is a server that can be killed and started again on the same port.
export class Server {
  #process!: ChildProcess
  #ended!: Promise<unknown>
  port = 0

  static async start(...flags: string[]): Promise<Server> {
    assert.ok(existsSync(BINARY), `no server at ${BINARY}: build it, or set SHOAL_BIN to where it is`)
    const server = new Server(flags)
    server.port = await freePort()
    await server.begin()
    return server
  }

  private constructor(private readonly flags: string[]) {}

  get url(): string {
    return `ws://127.0.0.1:${this.port}/ws/uploads`
  }

  // begin returns when the server serves.
  async begin(): Promise<void> {
    const child = spawn(BINARY, [
      'serve', '--addr', `127.0.0.1:${this.port}`, '--admin-addr', '127.0.0.1:0', '--jwt-secret', SECRET, '--api-key', 'key',
      '--authorize', 'open', '--drain', '1s', ...this.flags,
    ], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#process = child
    this.#ended = new Promise((resolve) => child.once('exit', resolve))
    let output = ''
    await new Promise<void>((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (data) => {
          output += data
          if (output.includes('shoal serves on')) resolve()
        })
      }
      child.once('exit', (code) => reject(new Error(`the server ended with ${code}:\n${output}`)))
    })
  }

  async end(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
    this.#process.kill(signal)
    await this.#ended
  }

  freeze(): void {
    this.#process.kill('SIGSTOP')
  }

  thaw(): void {
    this.#process.kill('SIGCONT')
  }

  // api returns the answer to a GET of the HTTP API.
  async api(path: string): Promise<any> {
    const answer = await fetch(`http://127.0.0.1:${this.port}${path}`, { headers: { Authorization: 'Bearer key' } })
    return answer.json()
  }

  async publish(id: string, ...messages: object[]): Promise<void> {
    const answer = await fetch(`http://127.0.0.1:${this.port}/v1/uploads/${encodeURIComponent(id)}/messages`, {
      method: 'POST', body: messages.map((m) => `${JSON.stringify(m)}\n`).join(''),
      headers: { Authorization: 'Bearer key', 'Content-Type': 'application/x-ndjson' },
    })
    assert.equal(answer.status, 202, await answer.text())
  }
}

export const progress = (id: string, percent: number, message = '') => ({
  action: 'upload_progress',
  payload: {
    upload_id: id, status: 'analyzing', stage: 'vision_analysis', progress_percent: percent, message,
    error_message: null, description_audit_score: null,
  },
})

export const line = (n: number, more: object = {}) => ({ action: 'line', n, ...more })

// token returns a token of a user that lasts so many seconds.
export function token(user = 'ann', seconds = 3600, claims: object = {}): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const now = Math.floor(Date.now() / 1000)
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, iat: now, exp: now + seconds, ...claims })}`
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`
}

// Proxy stands between clients and a server. While it is cut it refuses connections.
export class Proxy {
  #pairs = new Set<[Socket, Socket]>()
  #listener = createServer((client) => this.#join(client))
  port = 0
  #cut = false
  // blocking refuses WebSockets, as some networks do.
  blocking = false
  // rate bounds what the server sends, in bytes a second. 0: no bound.
  rate = 0

  static async before(server: Server): Promise<Proxy> {
    const proxy = new Proxy(server)
    await new Promise<void>((resolve) => proxy.#listener.listen(0, '127.0.0.1', resolve))
    proxy.port = (proxy.#listener.address() as AddressInfo).port
    return proxy
  }

  private constructor(private readonly server: Server) {}

  get url(): string {
    return `ws://127.0.0.1:${this.port}/ws/uploads`
  }

  #join(client: Socket): void {
    if (this.#cut) return void client.destroy()
    const server = dial(this.server.port, '127.0.0.1')
    const pair: [Socket, Socket] = [client, server]
    this.#pairs.add(pair)
    client.on('data', (data) => {
      if (this.blocking && /\r\nupgrade: websocket\r\n/i.test(data.toString('latin1'))) {
        client.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
      } else server.write(data)
    })
    client.on('end', () => server.end())
    server.on('data', (data) => {
      client.write(data)
      if (this.rate === 0) return
      server.pause()
      setTimeout(() => server.resume(), data.length / this.rate * 1000)
    })
    server.on('end', () => client.end())
    for (const [one, other] of [[client, server], [server, client]] as const) {
      one.on('error', () => {})
      one.on('close', () => {
        other.destroy()
        this.#pairs.delete(pair)
      })
    }
  }

  cut(): void {
    this.#cut = true
    for (const [client, server] of this.#pairs) {
      client.destroy()
      server.destroy()
    }
  }

  mend(): void {
    this.#cut = false
  }

  async close(): Promise<void> {
    this.cut()
    await new Promise((resolve) => this.#listener.close(resolve))
  }
}

export async function freePort(): Promise<number> {
  const listener = createServer()
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  const { port } = listener.address() as AddressInfo
  await new Promise((resolve) => listener.close(resolve))
  return port
}

// until waits for a state of the connection, or of an upload.
export function until(client: Shoal<any>, state: ConnectionStatus['state'] | string, id?: string): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      if ((id === undefined ? client.status() : client.status(id)).state !== state) return
      end()
      resolve()
    }
    const end = client.subscribe(look, id)
    look()
  })
}

// take returns the next messages of a loop.
export async function take(loop: Follow<any>, n: number): Promise<any[]> {
  const taken: any[] = []
  while (taken.length < n) {
    const { done, value } = await loop.next()
    if (done) throw new Error(`the loop ended after ${JSON.stringify(taken)}`)
    taken.push(value)
  }
  return taken
}

export const numbers = (messages: any[]) => messages.map((m) => m.n ?? m.reason ?? m.payload?.progress_percent)

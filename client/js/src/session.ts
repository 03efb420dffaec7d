import type { Channel, Claim, Incoming, Problem } from './channel.js'
import { FINAL, ShoalError, TOKEN_REFUSED, closeError } from './errors.js'
import { openSocket } from './socket.js'
import { Tokens } from './token.js'
import type { ConnectionStatus, Options, Position } from './types.js'
import { watchPage } from './wake.js'

const FIRST_DELAY = 500 // ms; doubled with each attempt that fails
const LONGEST_DELAY = 15_000
const CONNECT_TIMEOUT = 20_000 // from the call of token() to auth_success
const SILENCE = 75_000 // the server pings each 30 s, if not set otherwise
const STEADY = 5000 // a connection that lived this long ends a series of failures
const LONGEST_RETRY_AFTER = 600_000 // the longest time that a server may ask for
const LONGEST_TIMER = 2e9 // setTimeout takes no longer ones
const PROBE = 5000 // time for the answer to a probe
const SOCKET_FAILURES = 2 // after so many sockets that never opened, a stream is tried

/** Answer is the server's answer to a subscription. */
export interface Answer extends Position {
  recovered: boolean
  /** No message follows: the newest one is no longer held. */
  expired?: boolean
}

// Sink receives the events of a session. Its functions do not throw.
export interface Sink {
  /** How far an upload has been received. */
  position(id: string): Position | undefined
  connection(status: ConnectionStatus): void
  answer(id: string, answer: Answer): void
  /** A message of a live upload, in order. One that was received before may come again. */
  message(id: string, message: Incoming): void
  /** The upload is followed no longer. */
  ended(id: string, error: ShoalError): void
  /** A message that belongs to no upload followed here. */
  other(message: Incoming): void
}

// Link connects a client with a session: its own, or another tab's.
export interface Link {
  /** Follows an upload from the sink's position, again if it is followed already. */
  follow(id: string): void
  unfollow(id: string): void
  reconnect(): void
  close(): void
}

// Session keeps one connection to the server and through reconnects the uploads that are followed on it.
export class Session implements Link {
  // Whether the server has answered: messages before that belong to another connection's claim.
  #uploads = new Map<string, boolean>()
  #claimed = new Map<string, boolean>() // on the current channel; true: has to be claimed again
  #releasing = new Map<string, number>() // unsubscribes without an answer
  #changed = new Set<string>() // uploads whose claim does not fit yet
  #channel: Channel | undefined
  #authenticated = false
  #status: ConnectionStatus = { state: 'connecting' }
  #attempts = 0
  #failedSockets = 0
  #liveSince = 0
  #lastMessage = 0
  #notBefore = 0 // by the monotonic clock, as all times below but that of the status
  #refusedOnce = false
  #refusal: Incoming | undefined
  #tokens: Tokens
  #abort = new AbortController() // of the current attempt or connection
  #timers = new Map<unknown, ReturnType<typeof setTimeout>>()
  #unwatch: () => void

  constructor(private readonly url: URL, private readonly options: Options<any>, private readonly sink: Sink) {
    this.#tokens = new Tokens(options.token)
    this.#unwatch = watchPage(() => this.#wake(), () => this.#leave())
    void this.#connect()
  }

  follow(id: string): void {
    this.#uploads.set(id, false)
    if (this.#claimed.has(id)) this.#claimed.set(id, true)
    this.#change(id)
  }

  unfollow(id: string): void {
    if (this.#uploads.delete(id)) this.#change(id)
  }

  // isLive reports whether the server has answered for an upload; undefined: it is not followed.
  isLive(id: string): boolean | undefined {
    return this.#uploads.get(id)
  }

  reconnect(): void {
    if (this.#status.state !== 'waiting' && this.#status.state !== 'stopped') return
    this.#tokens.refuse() // the user may be another one
    this.#refusedOnce = false
    this.#attempts = 0
    void this.#connect()
  }

  close(): void {
    this.#unwatch()
    this.#uploads.clear()
    this.#end({ state: 'closed' })
  }

  // wake tries at once where the session waits, though not before the time that the server asked for, and tests a
  // connection that may have died unnoticed.
  #wake(): void {
    if (this.#authenticated) return this.#probe()
    if (this.#status.state !== 'waiting') return
    this.#attempts = 0
    this.#retry(this.#status.error, 0)
  }

  // leave lets go of the connection when the page goes away; `pageshow` brings it back.
  #leave(): void {
    if (this.#status.state !== 'stopped') this.#end({ state: 'waiting' })
  }

  // Connecting

  async #connect(): Promise<void> {
    this.#drop()
    this.#after('connect', this.options.connectTimeout ?? CONNECT_TIMEOUT, () => this.#lost())
    const { signal } = this.#abort
    this.#report({ state: 'connecting' })
    if (signal.aborted) return // by the application, in its listener
    const Socket = this.options.WebSocket ?? globalThis.WebSocket
    const stream = this.options.sse !== false && (!Socket || this.#failedSockets >= SOCKET_FAILURES)
    try {
      const token = await this.#tokens.get(signal)
      if (signal.aborted) return
      // Before the import: where a deploy has removed that file, sockets are tried again.
      this.#failedSockets = stream ? 0 : this.#failedSockets + 1
      // Most pages never need the code for streams.
      const open = stream ? (await import('./sse.js')).openStream : openSocket
      if (signal.aborted) return
      this.#channel = open(this.url, Socket, {
        open: () => this.#channel!.auth(token),
        room: () => this.#update(),
        position: (id) => this.sink.position(id),
        message: (message) => this.#receive(message),
        closed: (...why) => this.#closed(...why),
      }, this.options.sse)
      if (stream) this.#changeAll() // which is accepted together with its uploads
    } catch (cause) {
      if (signal.aborted) return
      const error = cause instanceof ShoalError ? cause : new ShoalError('unreachable', `${cause}`, undefined, cause)
      if (error.code === 'logged_out') this.#end({ state: 'stopped', error })
      else this.#retry(error)
    }
  }

  #receive(message: Incoming): void {
    this.#lastMessage = performance.now()
    this.#clear('probe')
    switch (message.action) {
      case 'auth_success': return this.#accepted(message.user_id)
      case 'auth_error': // the close that follows decides; an open connection stays
        this.#refusal = message
        return this.#renewLater()
      case 'ping': return this.#channel!.pong()
      case 'reconnect': return this.#setNotBefore(message.retry_after_ms)
      case 'subscribed': return this.#answered(message.upload_id, message as unknown as Answer)
      case 'resumed':
        for (const id in message.uploads) this.#answered(id, message.uploads[id])
        return
      case 'unsubscribed': return this.#unsubscribed(message.upload_id)
      case 'error': return this.#failed(message)
    }
    if (this.#authenticated) this.#deliver(message)
  }

  #accepted(user: string): void {
    this.#refusal = undefined
    this.#refusedOnce = false
    const { transport } = this.#channel!
    const renewed = this.#authenticated
    this.#authenticated = true
    this.#renewLater()
    if (renewed) return
    // A stream that works may be all that works: the next time one socket is tried before it.
    this.#failedSockets = transport === 'sse' ? 1 : 0
    this.#liveSince = performance.now()
    this.#clear('connect')
    this.#watchSilence()
    this.#changeAll()
    this.#report({ state: 'live', transport, user })
  }

  #renewLater(): void {
    const delay = this.#tokens.renewIn()
    if (!this.#authenticated || !delay) return
    this.#after('renew', Math.min(delay, LONGEST_TIMER), async () => {
      const { signal } = this.#abort
      try {
        const token = await this.#tokens.get(signal, true)
        if (!signal.aborted) this.#channel!.auth(token)
      } catch {
        // Without a fresh token the server ends the connection, and then the next attempt says why there is none.
      }
      if (!signal.aborted) this.#renewLater()
    })
  }

  // Uploads

  // change schedules an update of the claims for the end of the current task, so that an upload that is unfollowed and
  // followed again in one task costs nothing. While the channel has no room, uploads wait here, not in a queue of
  // messages: one that is followed and unfollowed before it is its turn costs nothing either.
  #change(id: string): void {
    this.#changed.add(id)
    if (this.#changed.size === 1) queueMicrotask(() => this.#update())
  }

  #changeAll(): void {
    for (const id of this.#uploads.keys()) this.#change(id)
  }

  #update(): void {
    const claim: Claim[] = []
    const release: string[] = []
    const channel = this.#channel
    if (!this.#authenticated && channel?.transport !== 'sse') return this.#changed.clear()
    for (const id of this.#changed) {
      if (!channel!.hasRoom(claim.length, release.length)) break
      this.#changed.delete(id)
      const wanted = this.#uploads.has(id)
      const stale = this.#claimed.get(id)
      // Before it is claimed again, a claim is ended: the answer to that tells its messages from those of the next one.
      if (wanted ? stale : stale !== undefined) {
        this.#claimed.delete(id)
        this.#releasing.set(id, (this.#releasing.get(id) ?? 0) + 1)
        release.push(id)
      }
      if (wanted && stale !== false) {
        this.#claimed.set(id, false)
        claim.push([id, this.sink.position(id)])
      }
    }
    channel!.claim(claim, release)
  }

  // answered handles the answer to a claim. While the end of a former claim is not acknowledged, it is that one's.
  #answered(id: string, answer: Answer): void {
    if (!this.#uploads.has(id) || this.#releasing.has(id) || !(answer?.offset >= 0)) return
    this.#uploads.set(id, true)
    this.sink.answer(id, answer)
  }

  #deliver(message: Incoming): void {
    const id = message.upload_id ?? message.payload?.upload_id
    const live = this.#uploads.get(id)
    if (live) this.sink.message(id, message)
    else if (live === undefined) this.sink.other(message)
  }

  // unsubscribed tells the answer to an unsubscribe from the end of a subscription that a new token does not allow.
  #unsubscribed(id: string): void {
    const asked = this.#releasing.get(id)
    if (!asked) this.#refuse(id, 'forbidden', 'not allowed any more')
    else if (asked > 1) this.#releasing.set(id, asked - 1)
    else this.#releasing.delete(id)
  }

  #refuse(id: string, code: string, text: string): void {
    this.#claimed.delete(id)
    if (this.#uploads.delete(id)) this.sink.ended(id, new ShoalError(code, `upload "${id}": ${text}`))
  }

  // failed handles a refusal. One that names no upload concerns all that wait for an answer. Where the server says
  // when to come again, or failed itself, the subscription is repeated; else it is final.
  #failed({ code, message, upload_id: one, upload_ids: many, retry_after_ms: after }: Incoming): void {
    const named: string[] | undefined = many ?? (one && [one])
    const ids = [...this.#claimed.keys()].filter((id) =>
      !this.#releasing.has(id) && (named ? named.includes(id) : !this.#uploads.get(id)))
    if (after === undefined && code !== 'internal') return ids.forEach((id) => this.#refuse(id, code, message))
    for (const id of ids) this.#claimed.delete(id)
    this.#after(ids, bounded(after ?? this.#delay(3)), () => ids.forEach((id) => this.#change(id)))
  }

  // The end of a connection

  #closed(closeCode: number, reason: string, own?: Problem, retryAfter?: number): void {
    const error = own ? new ShoalError(...own) : closeError(closeCode, reason, this.#refusal)
    this.#setNotBefore(retryAfter)
    let final = FINAL.includes(closeCode)
    if (closeCode === TOKEN_REFUSED && error.code !== 'unavailable') {
      final = this.#refusedOnce
      this.#refusedOnce = true
      this.#tokens.refuse()
    }
    if (final) this.#end({ state: 'stopped', error })
    else this.#retry(error)
  }

  #lost(): void {
    this.#retry(new ShoalError('unreachable', `no answer from ${this.url.host}`))
  }

  #retry(error: ShoalError | undefined, delay?: number): void {
    if (this.#authenticated && performance.now() - this.#liveSince >= STEADY) this.#attempts = 0
    const wait = Math.max(delay ?? this.#delay(this.#attempts++), this.#notBefore - performance.now())
    this.#drop()
    this.#after('retry', bounded(wait), () => void this.#connect())
    this.#report({ state: 'waiting', retryAt: Date.now() + wait, error })
  }

  // delay draws from a range that doubles with each attempt: clients that were cut off together do not come back
  // together.
  #delay(attempts: number): number {
    return Math.random() * Math.min(this.options.maxDelay ?? LONGEST_DELAY, FIRST_DELAY * 2 ** attempts)
  }

  #setNotBefore(retryAfter: unknown): void {
    this.#notBefore = Math.max(this.#notBefore, performance.now() + bounded(retryAfter))
  }

  #end(status: ConnectionStatus): void {
    this.#drop()
    this.#report(status)
  }

  // drop lets go of the channel, of calls of token() and of timers.
  #drop(): void {
    this.#abort.abort()
    this.#abort = new AbortController()
    this.#channel?.close()
    this.#channel = this.#refusal = undefined
    for (const name of [...this.#timers.keys()]) this.#clear(name)
    this.#changed.clear()
    this.#claimed.clear()
    this.#releasing.clear()
    for (const id of this.#uploads.keys()) this.#uploads.set(id, false)
    this.#authenticated = false
  }

  // watchSilence tests a connection on which nothing came for a while: it may have died unnoticed, or the server may
  // ping less often.
  #watchSilence(): void {
    const limit = this.options.silence ?? SILENCE
    const left = this.#lastMessage + limit - performance.now()
    if (left <= 0) this.#probe()
    this.#after('silence', left > 0 ? Math.min(left, limit) : limit, () => this.#watchSilence())
  }

  #probe(): void {
    if (this.#timers.has('probe')) return
    this.#channel!.probe()
    this.#after('probe', PROBE, () => this.#lost())
  }

  // report comes last where it is called: a listener may call close() or reconnect().
  #report(status: ConnectionStatus): void {
    this.#status = status
    this.sink.connection(status)
  }

  // after calls action later, unless the connection has ended before or a timer of the same name was set.
  #after(name: unknown, delay: number, action: () => void): void {
    this.#clear(name)
    this.#timers.set(name, setTimeout(() => {
      this.#timers.delete(name)
      action()
    }, delay))
  }

  #clear(name: unknown): void {
    clearTimeout(this.#timers.get(name))
    this.#timers.delete(name)
  }
}

// bounded returns a time in ms that a server has asked for.
function bounded(after: unknown): number {
  return Math.min(Number(after) || 0, LONGEST_RETRY_AFTER)
}

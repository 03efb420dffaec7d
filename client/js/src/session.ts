import type { Channel, Claim, Incoming, Problem } from './channel.js'
import { FINAL, ShoalError, TOKEN_REFUSED, closeError } from './errors.js'
import { isOffset, isPosition } from './position.js'
import { openSocket } from './socket.js'
import { tokensFrom } from './token.js'
import type { ConnectionStatus, Options, Position } from './types.js'
import { watchPage } from './wake.js'

const FIRST_DELAY = 500 // ms; doubled with each attempt that fails
const LONGEST_DELAY = 15_000
const CONNECT_TIMEOUT = 20_000 // from the call of token() to auth_success
const SILENCE = 75_000 // the server pings each 30 s, if not set otherwise
const TICK = 10_000 // the longest time between two checks of a live connection
const SLEPT = 60_000 // a timer that is late by more shows a sleep: browsers run those of hidden pages once a minute
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

// Session is a link that keeps one connection to the server and through reconnects the uploads that are followed on it.
export interface Session extends Link {
  /** Reports whether the server has answered for an upload; undefined: it is not followed. */
  isLive(id: string): boolean | undefined
  /** Tries at once where the session waits, and tests its connection otherwise. */
  wake(): void
}

// Sharing is the function behind a Share. It decides who keeps the connection: the client itself with open(), or another
// tab. Its parts have other names in the published modules, so that only functions of this package can be one.
export type Sharing = (url: string, open: (sink: Sink) => Session, sink: Sink) => Link

// openSession begins to connect.
export function openSession(url: URL, options: Options<any>, sink: Sink): Session {
  // Whether the server has answered: messages before that belong to another connection's claim.
  const uploads = new Map<string, boolean>()
  const claimed = new Set<string>() // on the current channel
  let releasing: string[] = [] // unsubscribes without an answer
  const changed = new Set<string>() // uploads that have to be claimed, claimed again, or released
  let channel: Channel | undefined
  let authenticated = false
  let status: ConnectionStatus = { state: 'connecting' }
  let attempts = 0
  let failedSockets = 0
  let liveSince = 0
  let lastMessage = 0
  let notBefore = 0 // by the monotonic clock, as all times below but that of the status
  let refusedOnce = false
  let refusal: Incoming | undefined
  const tokens = tokensFrom(options.token)
  let abort = new AbortController() // of the current attempt or connection
  const timers = new Map<unknown, ReturnType<typeof setTimeout>>()

  const follow = (id: string) => {
    uploads.set(id, false)
    change([id])
  }

  const unfollow = (id: string) => {
    if (uploads.delete(id)) change([id])
  }

  const reconnect = () => {
    if (status.state !== 'waiting' && status.state !== 'stopped') return
    tokens.refuse() // the user may be another one
    refusedOnce = false
    attempts = 0
    void connect()
  }

  const close = () => {
    unwatch()
    uploads.clear()
    end({ state: 'closed' })
  }

  // wake tries at once where the session waits, though not before the time that the server asked for. A connection may
  // have died unnoticed, and one that is being opened may have begun on another network: they are tested.
  const wake = () => {
    attempts = 0
    if (status.state === 'waiting') retry(status.error, 0)
    else if (channel) probe()
  }

  // leave lets go of the connection when the page goes away; `pageshow` brings it back.
  const leave = () => {
    if (status.state !== 'stopped') end({ state: 'waiting' })
  }

  // Connecting

  const connect = async () => {
    drop()
    let token: string | undefined
    after('silence', options.connectTimeout ?? CONNECT_TIMEOUT, () => token ? lost() : lost('token', 'token()'))
    const { signal } = abort
    report({ state: 'connecting' })
    if (signal.aborted) return // by the application, in its listener
    const Socket = options.WebSocket ?? globalThis.WebSocket
    const stream = options.sse !== false && (!Socket || failedSockets >= SOCKET_FAILURES)
    try {
      token = await tokens.get(signal)
      if (signal.aborted) return
      // Before the import: where a deploy has removed that file, sockets are tried again.
      failedSockets = stream ? 0 : failedSockets + 1
      // Most pages never need the code for streams.
      const open = stream ? (await import('./sse.js')).openStream : openSocket
      if (signal.aborted) return
      channel = open(url, Socket, {
        open() {
          failedSockets = 0
          channel!.auth(token!)
        },
        room: update,
        position: sink.position,
        message: receive,
        closed,
      }, options.sse)
      if (stream) change(uploads.keys()) // which is accepted together with its uploads
    } catch (cause) {
      if (signal.aborted) return
      const error = cause instanceof ShoalError ? cause : new ShoalError('unreachable', `${cause}`, undefined, cause)
      fail(error, error.code === 'logged_out')
    }
  }

  const receive = (message: Incoming) => {
    lastMessage = performance.now()
    clear('probe')
    switch (message.action) {
      case 'auth_success': return accepted(message.user_id)
      case 'auth_error':
        // The close that follows decides. None does where a later token cannot be checked now: the former one holds.
        if (authenticated && message.code === 'unavailable') after('renew', delay(attempts++), renew)
        else refusal = { ...message, message: `${message.message ?? ''}` } // throws here for what is no text
        return
      case 'ping': return channel!.pong()
      case 'reconnect': return setNotBefore(message.retry_after_ms)
      case 'subscribed': return answered(message.upload_id, message as unknown as Answer)
      case 'resumed':
        for (const id in message.uploads) answered(id, message.uploads[id])
        return
      case 'unsubscribed': return unsubscribed(message.upload_id)
      case 'error': return failed(message)
    }
    if (authenticated) deliver(message)
  }

  const accepted = (user: string) => {
    refusal = undefined
    refusedOnce = false
    const { transport } = channel!
    renewLater()
    if (authenticated) return
    authenticated = true
    if (transport === 'sse') failedSockets = 1 // it may be all that works: the next time one socket is tried before it
    else change(uploads.keys())
    liveSince = performance.now()
    watchSilence() // in the place of the bound for connecting
    report({ state: 'live', transport, user })
  }

  const renewLater = () => after('renew', tokens.renewIn(), () => renew(true))

  const renew = async (fresh?: boolean) => {
    const { signal } = abort
    try {
      const token = await tokens.get(signal, fresh)
      if (!signal.aborted) channel!.auth(token)
    } catch {
      // Without a fresh token the server ends the connection, and then the next attempt says why there is none.
    }
    if (!signal.aborted) renewLater()
  }

  // Uploads

  // change schedules an update of the claims for the end of the current task, so that an upload that is followed and
  // unfollowed in one task costs nothing. While the channel has no room, uploads wait here, not in a queue of
  // messages: one that is followed and unfollowed before it is its turn costs nothing either.
  const change = (ids: Iterable<string>) => {
    if (!changed.size) queueMicrotask(update)
    for (const id of ids) changed.add(id)
  }

  // update claims and releases as many uploads as there is room for, in order. But an upload is claimed as soon as another
  // one has been released: each release takes a message, and behind a whole list that was left it would wait for long.
  const update = () => {
    const claim: Claim[] = []
    const release: string[] = []
    if (!authenticated && channel?.transport !== 'sse') return changed.clear()
    while (changed.size && channel!.hasRoom(claim.length, release.length)) {
      const [next] = changed
      const id = (release.length > claim.length && [...changed].find((id) => !claimed.has(id)) || next)!
      changed.delete(id)
      // Before it is claimed again, a claim is ended: the answer to that tells its messages from those of the next one.
      if (claimed.delete(id)) {
        release.push(id)
        releasing.push(id)
      }
      if (uploads.has(id)) {
        claimed.add(id)
        claim.push([id, sink.position(id)])
      }
    }
    channel!.claim(claim, release)
  }

  // answered handles the answer to a claim. While the end of a former claim is not acknowledged, it is that one's.
  const answered = (id: string, answer: Answer) => {
    if (!uploads.has(id) || releasing.includes(id) || !isPosition(answer)) return
    uploads.set(id, true)
    sink.answer(id, answer)
  }

  const deliver = (message: Incoming) => {
    if (!isOffset(message.offset)) delete message.offset // a position with it would be refused
    const id = message.upload_id ?? message.payload?.upload_id
    const live = uploads.get(id)
    if (live) sink.message(id, message)
    else if (live === undefined) sink.other(message)
  }

  // unsubscribed tells the answer to an unsubscribe from the end of a subscription that a new token does not allow.
  const unsubscribed = (id: string) => {
    const asked = releasing.indexOf(id)
    if (asked < 0) refuse(id, 'forbidden', 'no longer allowed')
    else releasing.splice(asked, 1)
  }

  const refuse = (id: string, code: string, text: string) => {
    claimed.delete(id)
    if (uploads.delete(id)) sink.ended(id, new ShoalError(code, `upload "${id}": ${text}`))
  }

  // failed handles a refusal. One that names no upload concerns all that wait for an answer: before authentication, the
  // token. Where the server says when to come again, or failed itself, the subscription is repeated; else it is final.
  const failed = ({ code, message, upload_id: one, upload_ids: many, retry_after_ms: wait }: Incoming) => {
    if (!authenticated && !many) return fail(new ShoalError('not_shoal', `${url.host} takes no token: ${message}`), true)
    const named: string[] | undefined = many ?? (one && [one])
    const ids = [...named ?? claimed].filter((id) =>
      claimed.has(id) && !releasing.includes(id) && (named || !uploads.get(id)))
    const final = wait === undefined && code !== 'internal'
    for (const id of ids) final ? refuse(id, code, message) : claimed.delete(id)
    if (!final) after(ids, bounded(wait ?? delay(3)), () => change(ids.filter((id) => !claimed.has(id))))
  }

  // The end of a connection

  const closed = (closeCode: number, reason: string, own?: Problem, retryAfter?: number) => {
    const error = own ? new ShoalError(...own) : closeError(closeCode, reason, refusal)
    setNotBefore(retryAfter)
    let final = closeCode in FINAL
    if (closeCode === TOKEN_REFUSED && error.code !== 'unavailable') {
      final = refusedOnce
      refusedOnce = true
      tokens.refuse()
    }
    fail(error, final)
  }

  const fail = (error: ShoalError, final: boolean) => final ? end({ state: 'stopped', error }) : retry(error)

  const lost = (code = 'unreachable', from = url.host) => retry(new ShoalError(code, `no answer from ${from}`))

  const retry = (error: ShoalError | undefined, pause?: number) => {
    if (authenticated && performance.now() - liveSince >= STEADY) attempts = 0
    const wait = Math.max(pause ?? delay(attempts++), notBefore - performance.now())
    drop()
    after('retry', wait, connect)
    report({ state: 'waiting', retryAt: Date.now() + wait, error })
  }

  // delay draws from a range that doubles with each attempt: clients that were cut off together do not come back
  // together.
  const delay = (failures: number) =>
    Math.random() * Math.min(options.maxDelay ?? LONGEST_DELAY, FIRST_DELAY * 2 ** failures)

  const setNotBefore = (retryAfter: unknown) => {
    notBefore = Math.max(notBefore, performance.now() + bounded(retryAfter))
  }

  const end = (last: ConnectionStatus) => {
    drop()
    report(last)
  }

  // drop lets go of the channel, of calls of token() and of timers.
  const drop = () => {
    abort.abort()
    abort = new AbortController()
    channel?.close()
    channel = refusal = undefined
    releasing = []
    for (const name of timers.keys()) clear(name)
    changed.clear()
    claimed.clear()
    for (const id of uploads.keys()) uploads.set(id, false)
    authenticated = false
  }

  // watchSilence tests a connection on which nothing came for a while: it may have died unnoticed, or the server may
  // ping less often. It also tests one after a sleep of the computer, which shows in a timer that fires late by the clock.
  const watchSilence = (due = Infinity) => {
    const left = lastMessage + (options.silence ?? SILENCE) - performance.now()
    if (left <= 0 || Date.now() > due + SLEPT) probe()
    const wait = left > 0 ? Math.min(left, TICK) : TICK
    const next = Date.now() + wait
    after('silence', wait, () => watchSilence(next))
  }

  // probe gives the connection up unless the server says something soon.
  const probe = () => {
    if (timers.has('probe')) return
    channel!.probe()
    after('probe', PROBE, lost)
  }

  // report comes last where it is called: a listener may call close() or reconnect().
  const report = (now: ConnectionStatus) => {
    status = now
    sink.connection(now)
  }

  // after calls action later, unless the connection has ended before or a timer of the same name was set.
  const after = (name: unknown, wait: number, action: () => void) => {
    clear(name)
    timers.set(name, setTimeout(() => {
      timers.delete(name)
      action()
    }, Math.min(wait, LONGEST_TIMER)))
  }

  const clear = (name: unknown) => {
    clearTimeout(timers.get(name))
    timers.delete(name)
  }

  const unwatch = watchPage(wake, leave)
  void connect()
  return { follow, unfollow, isLive: (id) => uploads.get(id), reconnect, wake, close }
}

// bounded returns a time in ms that a server has asked for.
function bounded(after: any): number {
  return Math.min(+after || 0, LONGEST_RETRY_AFTER)
}

import type { Incoming } from './channel.js'
import { ShoalError } from './index.js'
import { answered } from './position.js'
import type { Answer, Link, Session, Sink } from './session.js'
import type { ConnectionStatus, Position, Share } from './types.js'
import { watchPage } from './wake.js'

const PROTOCOL = 1 // of the messages: tabs with different releases of this module must not read each other's
const CHECK = 30_000 // ms between two questions to the leader
const SILENT = 5000 // a leader that has not answered in this time is replaced

const PROTOCOL = 1 // of the messages: tabs must not read those of a tab with another release of this module
// one that holds the lock. It keeps the connection for all of them.
type LeaderMessage =
  | { kind: 'lead' }
  | { kind: 'status'; status: ConnectionStatus }
  | { kind: 'answer'; id: string; answer: Answer }
  | { kind: 'message'; id: string; message: Incoming }
  | { kind: 'ended'; id: string; error: ShoalError }
  | { kind: 'other'; message: Incoming }
type TabMessage =
  | { kind: 'hello'; requests: FollowRequest[]; action: PendingAction }
  | { kind: 'follow'; request: FollowRequest }
  | { kind: 'unfollow'; id: string }
type Envelope = { from: string; to?: string } & (LeaderMessage | TabMessage)

const WAITING: LeaderMessage = { kind: 'status', status: { state: 'waiting' } }

// PendingAction is an action that the leader's session must do at once. A tab may be woken up while that of the leader
// sleeps.
type PendingAction = 'wake' | 'reconnect' | undefined

// FollowRequest is an upload that a tab follows, with the position up to which the tab has received it.
type FollowRequest = [id: string, since: Position | undefined]

/**
 * tabs has the tabs of this origin that use the same name and server share one connection: `connect(url, { share:
 * tabs(user.id) })`. Tabs of different users must use different names. Where the browser lacks BroadcastChannel or Web
 * Locks, each tab has a connection of its own.
 */
export function tabs(name: string): Share {
  if (typeof name !== 'string' || !name) {
    throw new ShoalError('bad_option', 'tabs() needs a name that differs from user to user, such as the id of the user')
  }
  return (url, open, sink) => {
    const able = globalThis.navigator?.locks && globalThis.BroadcastChannel
    return able ? new Tab(`shoal ${PROTOCOL} ${url} ${name}`, open, sink) : open(sink)
  }
}

class Tab implements Link {
  #self = '' // the tab's id, a new one each time that the tab joins
  #followed = new Set<string>() // the uploads that this tab follows
  #channel: BroadcastChannel | undefined
  #abort = new AbortController()
  #joined = false
  #ready = false // the tab holds its own lock, by which the leader knows that it lives
  #pending: PendingAction // of the next hello
  #closed = false
  #session: Session | undefined // of the leader
  #others = new Map<string, Set<string>>() // the leader's: the uploads that each other tab follows
  #positions = new Map<string, Position>() // the leader's: how far all tabs have received
  #newest = new Map<string, Incoming>() // the leader's: for tabs that come later
  #status: ConnectionStatus = { state: 'connecting' }
  #announced = '' // the last status that this tab's client has received, as JSON
  #timers = new Map<string, ReturnType<typeof setTimeout>>()
  #unwatch: () => void

  constructor(
    private readonly name: string, private readonly open: (sink: Sink) => Session, private readonly sink: Sink,
  ) {
    this.#unwatch = watchPage(() => this.#join('wake'), () => this.#leave())
    this.#join('wake')
  }

  follow(id: string): void {
    this.#followed.add(id)
    const request = this.#followRequest(id)
    if (this.#session) this.#followFor(request, this.#self)
    else this.#request({ kind: 'follow', request })
  }

  unfollow(id: string): void {
    this.#followed.delete(id)
    if (this.#session) this.#release(id)
    else this.#request({ kind: 'unfollow', id })
  }

  reconnect(): void {
    if (this.#session) this.#session.reconnect()
    else if (!this.#closed) this.#join('reconnect')
  }

  close(): void {
    this.#closed = true
    this.#unwatch()
    this.#leave()
    this.sink.connection({ state: 'closed' })
  }

  #followRequest(id: string): FollowRequest {
    return [id, this.sink.position(id)]
  }

  // join takes part, or asks whether there is a leader where this tab already does.
  #join(action: PendingAction): void {
    this.#pending = action
    if (this.#joined) return this.#ask()
    this.#joined = true
    this.#self = crypto.randomUUID()
    this.#abort = new AbortController()
    try {
      this.#channel = new BroadcastChannel(this.name)
    } catch {
      return this.#lead() // the page has no storage, nor an origin
    }
    this.#channel.onmessage = ({ data }) => this.#read(data)
    // A leader that read a message of this tab before the tab holds its lock would get the lock and take it for gone.
    this.#hold(this.#lock(this.#self), () => {
      this.#ready = true
      this.#ask()
      return this.#left()
    }).catch(() => {}) // this tab has left
    this.#compete()
    this.#repeat()
  }

  // leave removes this tab from the group; the other tabs continue.
  #leave(): void {
    this.#resign()
    this.#abort.abort()
    this.#closeChannel()
    this.#joined = this.#ready = false
    for (const name of this.#timers.keys()) this.#clear(name)
    this.#deliver(WAITING)
  }

  #closeChannel(): void {
    this.#channel?.close()
    this.#channel = undefined
  }

  // Leading

  // hold calls action with a lock, which is held until the promise of that has been resolved.
  #hold(name: string, action: () => unknown, steal = false): Promise<unknown> {
    const { signal } = this.#abort
    // A lock that is stolen is given at once and cannot be given up by a signal.
    return navigator.locks.request(name, steal ? { steal } : { signal }, () => signal.aborted || action())
  }

  // lock returns the name of the lock by which others know that a tab lives.
  #lock(tab: string): string {
    return `${this.name} ${tab}`
  }

  // left resolves when this tab leaves.
  #left(): Promise<unknown> {
    return new Promise((resolve) => this.#abort.signal.addEventListener('abort', resolve))
  }

  #compete(steal = false): void {
    const { signal } = this.#abort
    this.#hold(this.name, () => {
      this.#lead()
      return this.#left()
    }, steal).catch(({ name }) => {
      if (signal.aborted) return
      if (!this.#session) {
        if (name === 'AbortError') return
        this.#closeChannel() // without locks nothing can be shared: the page has no storage, nor an origin
        return this.#lead()
      }
      this.#resign() // another tab took this one for dead
      this.#compete()
      this.#ask()
      this.#deliver(WAITING)
    })
  }

  #lead(): void {
    this.#clear('silent')
    let session: Session | undefined
    const send = (message: LeaderMessage) => {
      if (session && session !== this.#session) return // resigned
      this.#deliver(message)
      this.#post(message)
    }
    session = this.#session = this.open({
      connection: (status) => send({ kind: 'status', status: this.#status = status }),
      position: (id) => this.#positions.get(id),
      answer: (id, answer) => {
        const at = this.#positions.get(id)
        if (at?.epoch !== answer.epoch) this.#newest.delete(id)
        this.#positions.set(id, answered(at, answer))
        send({ kind: 'answer', id, answer })
      },
      message: (id, message) => {
        this.#newest.set(id, message)
        const at = this.#positions.get(id)!
        if (message.offset > at.offset) this.#positions.set(id, { epoch: at.epoch, offset: message.offset })
        send({ kind: 'message', id, message })
      },
      ended: (id, error) => {
        this.#positions.delete(id)
        this.#newest.delete(id)
        send({ kind: 'ended', id, error })
      },
      other: (message) => send({ kind: 'other', message }),
    })
    for (const id of this.#followed) this.#followFor(this.#followRequest(id), this.#self)
    this.#post({ kind: 'lead' })
  }

  #resign(): void {
    const session = this.#session
    this.#session = undefined
    session?.close()
    this.#others.clear()
    this.#newest.clear()
    this.#positions.clear()
  }

  // serve handles a message of another tab.
  #serve(message: TabMessage, tab: string): void {
    const known = this.#remember(tab)
    switch (message.kind) {
      case 'hello': // which repeats what was asked for, for a leader that does not know it
        this.#post({ kind: 'status', status: this.#status }, tab)
        for (const request of message.requests) if (!known.has(request[0])) this.#followFor(request, tab)
        if (message.action === 'wake') this.#session!.wake()
        if (message.action === 'reconnect') this.#session!.reconnect()
        return
      case 'follow': return this.#followFor(message.request, tab)
      case 'unfollow':
        known.delete(message.id)
        this.#release(message.id)
    }
  }

  // followFor follows an upload for a tab, which may be this one.
  #followFor([id, since]: FollowRequest, tab: string): void {
    if (tab !== this.#self) this.#remember(tab).add(id)
    const session = this.#session!
    const at = this.#positions.get(id)
    const behind = since && (!at || (since.epoch === at.epoch && since.offset < at.offset))
    if (behind) this.#positions.set(id, since)
    const live = session.isLive(id)
    if (behind || live === undefined) return session.follow(id)
    if (!live) return // the answer is for all
    const recovered = since?.epoch === at!.epoch
    const message = this.#newest.get(id)
    this.#reply(tab, { kind: 'answer', id, answer: { ...at!, recovered, expired: !message } })
    if (message && !recovered) this.#reply(tab, { kind: 'message', id, message })
  }

  // remember returns the uploads that another tab follows. When the tab's own lock is free, the tab is gone.
  #remember(tab: string): Set<string> {
    const known = this.#others.get(tab)
    if (known) return known
    const ids = new Set<string>()
    this.#others.set(tab, ids)
    this.#hold(this.#lock(tab), () => {
      if (this.#others.get(tab) !== ids) return
      this.#others.delete(tab)
      ids.forEach((id) => this.#release(id))
    }).catch(() => {}) // this tab has left
    return ids
  }

  #release(id: string): void {
    if (this.#followed.has(id)) return
    for (const ids of this.#others.values()) if (ids.has(id)) return
    this.#session?.unfollow(id)
    this.#newest.delete(id)
    this.#positions.delete(id)
  }

  // Messages between tabs

  // request sends a change to the leader. Before the tab is ready that is not needed: hello contains all requests.
  #request(message: TabMessage): void {
    if (this.#ready) this.#post(message)
  }

  #reply(tab: string, message: LeaderMessage): void {
    if (tab === this.#self) this.#deliver(message)
    else this.#post(message, tab)
  }

  #post(message: LeaderMessage | TabMessage, to?: string): void {
    const plain = { ...message, from: this.#self, ...(to && { to }) } as any
    // An Error of a class of its own does not survive the channel.
    if (plain.error) plain.error = flat(plain.error)
    if (plain.status?.error) plain.status = { ...plain.status, error: flat(plain.status.error) }
    this.#channel?.postMessage(plain)
  }

  #read(message: Envelope): void {
    if (message.to !== undefined && message.to !== this.#self) return
    if (this.#session) {
      if (isTabMessage(message)) this.#serve(message, message.from)
      return
    }
    if (isTabMessage(message)) return
    this.#clear('silent')
    if (message.kind === 'lead') this.#ask()
    this.#deliver(message)
  }

  // deliver passes a message to this tab's client.
  #deliver(message: LeaderMessage): void {
    switch (message.kind) {
      case 'status': {
        const status = JSON.stringify(message.status)
        if (status === this.#announced) return
        this.#announced = status
        const { error } = message.status
        return this.sink.connection({ ...message.status, error: error && full(error) })
      }
      case 'answer': return this.sink.answer(message.id, message.answer)
      case 'message': return this.sink.message(message.id, message.message)
      case 'ended':
        this.#followed.delete(message.id)
        return this.sink.ended(message.id, full(message.error))
      case 'other': return this.sink.other(message.message)
    }
  }

  // ask requests an answer of the leader, and replaces a leader that does not answer.
  #ask(): void {
    if (this.#session || !this.#ready) return
    const requests = [...this.#followed].map((id) => this.#followRequest(id))
    this.#post({ kind: 'hello', requests, action: this.#pending })
    this.#pending = undefined
    if (!this.#timers.has('silent')) this.#after('silent', SILENT, () => {
      if (!this.#session) this.#compete(true)
    })
  }

  #repeat(): void {
    this.#after('check', CHECK, () => {
      this.#ask()
      this.#repeat()
    })
  }

  #after(name: string, delay: number, action: () => void): void {
    this.#clear(name)
    this.#timers.set(name, setTimeout(() => {
      this.#timers.delete(name)
      action()
    }, delay))
  }

  #clear(name: string): void {
    clearTimeout(this.#timers.get(name))
    this.#timers.delete(name)
  }
}

function isTabMessage(message: Envelope): message is { from: string } & TabMessage {
  return ['hello', 'follow', 'unfollow'].includes(message.kind)
}

function flat({ code, message, closeCode }: ShoalError): object {
  return { code, message, closeCode }
}

function full(error: ShoalError): ShoalError {
  const { code, message, closeCode } = error
  return error instanceof ShoalError ? error : new ShoalError(code, message, closeCode)
}

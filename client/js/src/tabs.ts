import { ShoalError } from './index.js'
import { type Claim, Leader, type LeaderMessage, type PendingAction, type TabMessage } from './leader.js'
import type { Link, Session, Sharing, Sink } from './session.js'
import type { ConnectionStatus, Share } from './types.js'
import { watchPage } from './wake.js'

const PROTOCOL = 3 // of the messages: tabs with different releases of this module must not read each other's
const CHECK = 30_000 // ms between two questions to the leader
const SILENT = 5000 // a leader that has not answered in this time is replaced

// Any tab may become the leader: the one that holds the lock. It keeps the connection for all of them. The messages of a
// leader carry its term, which is higher than the terms of all former leaders: messages of a leader that has lost its lock
// and has not noticed it are ignored. Those of the other tabs carry the highest term that they know: a leader with a lower
// one has lost its lock, or began after the clock was set back, and competes again.
type Envelope = { from: string; to?: string }
  & ((LeaderMessage & { term: number; known?: undefined }) | (TabMessage & { term?: undefined; known: number }))

const WAITING: LeaderMessage = { kind: 'status', status: { state: 'waiting' } }

/**
 * tabs has the tabs of this origin that use the same name and server share one connection: `connect(url, { share:
 * tabs(user.id) })`. Tabs of different users must use different names. Where the browser lacks BroadcastChannel or Web
 * Locks, each tab has a connection of its own.
 */
export function tabs(name: string): Share {
  if (typeof name !== 'string' || !name) {
    throw new ShoalError('bad_option', 'tabs() needs a name of the user, such as the id')
  }
  const share: Sharing = (url, open, sink) => {
    const able = globalThis.navigator?.locks && globalThis.BroadcastChannel
    return able ? new Tab(`shoal ${PROTOCOL} ${url} ${name}`, open, sink) : open(sink)
  }
  return share as unknown as Share
}

class Tab implements Link {
  #self = '' // the tab's id, a new one each time that the tab joins
  // The uploads that this tab follows. Messages are for it once its newest claim has been answered.
  #followed = new Map<string, { number: number; answered: boolean }>()
  #claims = 0 // numbers them
  #channel: BroadcastChannel | undefined
  #abort = new AbortController()
  #joined = false
  #ready = false // the tab holds its own lock, by which the leader knows that it lives
  #pending: PendingAction // of the next hello
  #closed = false
  #term = 0 // of the newest leader
  #leader: Leader | undefined // where this tab leads
  #announced = '' // the status that this tab's client was given last
  #stopped: ConnectionStatus | undefined // the same, if it is stopped: only reconnect() ends that
  #timers = new Map<string, ReturnType<typeof setTimeout>>()
  #unwatch: () => void

  constructor(
    private readonly name: string, private readonly open: (sink: Sink) => Session, private readonly sink: Sink,
  ) {
    this.#unwatch = watchPage(() => this.#join('wake'), () => this.#leave())
    this.#join('wake')
  }

  follow(id: string): void {
    this.#claim(id)
    const number = this.#claims
    // After the uploads that it takes the place of, which are let go at the end of the task.
    queueMicrotask(() => {
      if (this.#followed.get(id)?.number !== number) return
      this.#request({ kind: 'follow', claims: [[id, number, this.sink.position(id)]] })
    })
  }

  unfollow(id: string): void {
    this.#followed.delete(id)
    this.#request({ kind: 'unfollow', id })
  }

  reconnect(): void {
    this.#stopped = undefined
    if (this.#leader) this.#leader.reconnect()
    else if (!this.#closed) this.#join('reconnect')
  }

  close(): void {
    this.#closed = true
    this.#unwatch()
    this.#leave()
    this.sink.connection({ state: 'closed' })
  }

  // join takes part, or asks whether there is a leader where this tab already does.
  #join(action?: PendingAction): void {
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

  // leave lets the other tabs go on without this one.
  #leave(): void {
    this.#resign()
    this.#abort.abort()
    this.#hush()
    this.#joined = this.#ready = false
    for (const name of this.#timers.keys()) this.#clear(name)
    this.#wait()
  }

  #hush(): void {
    this.#channel?.close()
    this.#channel = undefined
  }

  // wait announces that there is no leader now.
  #wait(): void {
    if (!this.#stopped && !this.#closed) this.#deliver(WAITING)
  }

  // Leading

  // hold calls action with a lock, which is held until the promise of that has been resolved. It rejects where the browser
  // throws, as one without working locks does.
  async #hold(name: string, action: () => unknown, steal = false): Promise<unknown> {
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
    const { signal } = this.#abort
    return new Promise<unknown>((resolve) => signal.aborted ? resolve(0) : signal.addEventListener('abort', resolve))
  }

  #compete(steal = false): void {
    const { signal } = this.#abort
    this.#hold(this.name, () => {
      this.#lead()
      return this.#left()
    }, steal).catch(({ name }) => {
      if (signal.aborted) return
      if (!this.#leader) {
        if (name === 'AbortError') return
        this.#hush() // without locks nothing can be shared: the page has no storage, nor an origin
        return this.#lead()
      }
      this.#resign() // another tab took this one for dead
      this.#compete()
      this.#ask()
      this.#wait()
    })
  }

  #lead(): void {
    this.#clear('silent')
    const self = this.#self
    // The messages for this tab itself are delivered one by one and never within a call of the application, as those for
    // the others are.
    const own: LeaderMessage[] = []
    const next = () => {
      if (leader !== this.#leader) return // resigned
      this.#deliver(own[0]!)
      own.shift()
      if (own[0]) queueMicrotask(next)
    }
    const send = (message: LeaderMessage, to?: string) => {
      if (leader !== this.#leader) return
      if (to !== self) this.#post(message, to)
      if ((to ?? self) === self && own.push(message) === 1) queueMicrotask(next)
    }
    const leader = this.#leader = new Leader(this.open, send, (tab, gone) => {
      // The lock of another tab is free when that tab is gone.
      if (tab !== self) this.#hold(this.#lock(tab), gone).catch(() => {}) // this tab has left
    })
    this.#term = Math.max(this.#term + 1, Date.now()) // no tab may know of a later one, nor this tab of the last one
    this.#renew()
    leader.start(this.#stopped)
    leader.read({ kind: 'follow', claims: this.#unanswered() }, self)
  }

  #resign(): void {
    const leader = this.#leader
    this.#leader = undefined
    leader?.close()
    this.#renew()
  }

  // Talking

  // claim begins a follow, again where there is one: messages that are under way are not for it.
  #claim(id: string): void {
    this.#followed.set(id, { number: ++this.#claims, answered: false })
  }

  // renew replaces the claims that a former leader has answered.
  #renew(): void {
    for (const [id, { answered }] of this.#followed) if (answered) this.#claim(id)
  }

  // unanswered returns the claims that wait for an answer.
  #unanswered(): Claim[] {
    return [...this.#followed].flatMap(([id, { number, answered }]) => answered ? [] : [[id, number, this.sink.position(id)]])
  }

  // request tells the leader what has changed. Before the tab is ready it need not: hello will say all.
  #request(message: TabMessage): void {
    if (this.#leader) this.#leader.read(message, this.#self)
    else if (this.#ready) this.#post(message)
  }

  #post(message: LeaderMessage | TabMessage, to?: string): void {
    const plain = { ...message, from: this.#self, ...(to && { to }), [this.#leader ? 'term' : 'known']: this.#term } as any
    // An Error of a class of its own does not survive the channel.
    if (plain.error) plain.error = flat(plain.error)
    if (plain.status?.error) plain.status = { ...plain.status, error: flat(plain.status.error) }
    this.#channel?.postMessage(plain)
  }

  #read(message: Envelope): void {
    const { to, from, term, known } = message
    if ((to ?? this.#self) !== this.#self) return
    if (this.#leader) {
      if (term !== undefined) return
      if (known <= this.#term) return this.#leader.read(message, from)
      this.#term = known
      this.#leave()
      return this.#join()
    }
    if (term === undefined) return
    if (term < this.#term) return this.#ask()
    this.#clear('silent')
    if (term > this.#term) {
      this.#term = term
      this.#renew()
      this.#ask()
    }
    this.#deliver(message)
  }

  // deliver hands a message of the leader to this tab's client.
  #deliver(message: LeaderMessage): void {
    if (message.kind === 'status') {
      const { status } = message
      const announced = JSON.stringify(status)
      if (announced === this.#announced) return
      this.#announced = announced
      this.#stopped = status.state === 'stopped' ? status : undefined
      return this.sink.connection({ ...status, error: status.error && full(status.error) })
    }
    if (message.kind === 'other') return this.sink.other(message.message)
    const { id } = message
    const follow = this.#followed.get(id)
    if (!follow) return
    if (message.kind === 'message') return follow.answered ? this.sink.message(id, message.message) : undefined
    if (message.number !== follow.number) return
    if (message.kind === 'answer') {
      follow.answered = true
      return this.sink.answer(id, message.answer)
    }
    this.#followed.delete(id)
    this.sink.ended(id, full(message.error))
  }

  // ask has the leader answer, and takes its place if it does not.
  #ask(): void {
    if (this.#leader || !this.#ready) return
    this.#post({ kind: 'hello', claims: this.#unanswered(), action: this.#pending })
    this.#pending = undefined
    if (!this.#timers.has('silent')) this.#after('silent', SILENT, () => {
      if (!this.#leader) this.#compete(true)
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

function flat({ code, message, closeCode }: ShoalError): object {
  return { code, message, closeCode }
}

function full(error: ShoalError): ShoalError {
  const { code, message, closeCode } = error
  return error instanceof ShoalError ? error : new ShoalError(code, message, closeCode)
}

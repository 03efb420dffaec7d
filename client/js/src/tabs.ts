import type { Incoming } from './channel.js'
import { ShoalError } from './index.js'
import { answered } from './position.js'
import type { Answer, Link, Session, Sink } from './session.js'
import type { ConnectionStatus, Position, Share } from './types.js'
import { watchPage } from './wake.js'

const CHECK = 30_000 // ms between two questions to the leader
const SILENT = 5000 // a leader that has not answered in this time is replaced

// News goes from the leader to the tabs, Wish from a tab to the leader. Any tab may become the leader: the one that
// holds the lock. It keeps the connection for all of them.
type News =
  | { kind: 'lead' }
  | { kind: 'status'; status: ConnectionStatus }
  | { kind: 'answer'; id: string; answer: Answer }
  | { kind: 'message'; id: string; message: Incoming }
  | { kind: 'ended'; id: string; error: ShoalError }
  | { kind: 'other'; message: Incoming }
type Wish =
  | { kind: 'hello' }
  | { kind: 'follow'; id: string; since: Position | undefined }
  | { kind: 'unfollow'; id: string }
  | { kind: 'reconnect' }
type Letter = { from: string; to?: string } & (News | Wish)

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
    return able ? new Tab(`shoal ${url} ${name}`, open, sink) : open(sink)
  }
}

class Tab implements Link {
  #me = crypto.randomUUID()
  #wants = new Set<string>() // of this tab
  #channel: BroadcastChannel | undefined
  #abort = new AbortController()
  #session: Session | undefined // of the leader
  #others = new Map<string, Set<string>>() // the leader's: the uploads that each other tab follows
  #positions = new Map<string, Position>() // the leader's: how far all tabs have received
  #newest = new Map<string, Incoming>() // the leader's: for tabs that come later
  #status: ConnectionStatus = { state: 'connecting' }
  #timers = new Map<string, ReturnType<typeof setTimeout>>()
  #unwatch: () => void

  constructor(
    private readonly name: string, private readonly open: (sink: Sink) => Session, private readonly sink: Sink,
  ) {
    this.#unwatch = watchPage(() => this.#join(), () => this.#leave())
    this.#join()
  }

  follow(id: string): void {
    this.#wants.add(id)
    this.#wish(this.#follow(id))
  }

  #follow(id: string): Wish {
    return { kind: 'follow', id, since: this.sink.position(id) }
  }

  unfollow(id: string): void {
    this.#wants.delete(id)
    this.#wish({ kind: 'unfollow', id })
  }

  reconnect(): void {
    this.#join()
    this.#wish({ kind: 'reconnect' })
  }

  close(): void {
    this.#unwatch()
    for (const id of this.#wants) this.unfollow(id)
    this.#leave()
    this.sink.connection({ state: 'closed' })
  }

  // join takes part, or asks whether there is a leader where this tab already does.
  #join(): void {
    if (!this.#channel) {
      this.#channel = new BroadcastChannel(this.name)
      this.#channel.onmessage = ({ data }) => this.#read(data)
      this.#abort = new AbortController()
      // Others know by this lock that the tab lives. The promise stays open until the tab leaves.
      this.#hold(`${this.name} ${this.#me}`, until)
      this.#compete()
      this.#repeat()
    }
    this.#ask()
  }

  // leave lets the other tabs go on without this one.
  #leave(): void {
    this.#resign()
    this.#abort.abort()
    this.#channel?.close()
    this.#channel = undefined
    for (const name of this.#timers.keys()) this.#clear(name)
    this.#tell({ kind: 'status', status: { state: 'waiting' } })
  }

  // Leading

  // hold calls action with a lock, which is held until the promise of that has been resolved.
  #hold(name: string, action: (signal: AbortSignal) => unknown): void {
    const { signal } = this.#abort
    navigator.locks.request(name, { signal }, () => action(signal)).catch(() => {}) // this tab has left
  }

  #compete(steal = false): void {
    const { signal } = this.#abort
    // A lock that is stolen is given at once and cannot be given up by a signal.
    const how = steal ? { steal } : { signal }
    navigator.locks.request(this.name, how, () => {
      if (signal.aborted) return
      this.#lead()
      return until(signal)
    }).catch(() => {
      if (signal.aborted || !this.#session) return
      this.#resign() // another tab took this one for dead
      this.#compete()
    })
  }

  #lead(): void {
    this.#clear('silent')
    let session: Session | undefined
    const tell = (news: News) => {
      if (session && session !== this.#session) return // resigned
      this.#tell(news)
      this.#post(news)
    }
    session = this.#session = this.open({
      connection: (status) => tell({ kind: 'status', status: this.#status = status }),
      position: (id) => this.#positions.get(id),
      answer: (id, answer) => {
        const at = this.#positions.get(id)
        if (at?.epoch !== answer.epoch) this.#newest.delete(id)
        this.#positions.set(id, answered(at, answer))
        tell({ kind: 'answer', id, answer })
      },
      message: (id, message) => {
        this.#newest.set(id, message)
        const at = this.#positions.get(id)!
        if (message.offset > at.offset) this.#positions.set(id, { epoch: at.epoch, offset: message.offset })
        tell({ kind: 'message', id, message })
      },
      ended: (id, error) => {
        this.#positions.delete(id)
        this.#newest.delete(id)
        tell({ kind: 'ended', id, error })
      },
      other: (message) => tell({ kind: 'other', message }),
    })
    for (const id of this.#wants) this.#grant(this.#follow(id), this.#me)
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

  // grant handles the request of a tab, which may be this one.
  #grant(wish: Wish, tab: string): void {
    const session = this.#session!
    switch (wish.kind) {
      case 'hello': return this.#reply(tab, { kind: 'status', status: this.#status })
      case 'reconnect': return session.reconnect()
      case 'unfollow':
        this.#others.get(tab)?.delete(wish.id)
        return this.#release(wish.id)
      case 'follow': {
        if (tab !== this.#me) this.#remember(tab).add(wish.id)
        const { id, since } = wish
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
    }
  }

  // remember returns the uploads that another tab follows. When the tab's own lock is free, the tab is gone.
  #remember(tab: string): Set<string> {
    const known = this.#others.get(tab)
    if (known) return known
    const ids = new Set<string>()
    this.#others.set(tab, ids)
    this.#hold(`${this.name} ${tab}`, () => {
      if (this.#others.get(tab) !== ids) return
      this.#others.delete(tab)
      ids.forEach((id) => this.#release(id))
    })
    return ids
  }

  #release(id: string): void {
    if (this.#wants.has(id)) return
    for (const ids of this.#others.values()) if (ids.has(id)) return
    this.#session?.unfollow(id)
    this.#newest.delete(id)
    this.#positions.delete(id)
  }

  // Talking

  #wish(wish: Wish): void {
    if (this.#session) this.#grant(wish, this.#me)
    else this.#post(wish)
  }

  #reply(tab: string, news: News): void {
    if (tab === this.#me) this.#tell(news)
    else this.#post(news, tab)
  }

  #post(letter: News | Wish, to?: string): void {
    const plain = { ...letter, from: this.#me, ...(to && { to }) } as any
    // An Error of a class of its own does not survive the channel.
    if (plain.error) plain.error = flat(plain.error)
    if (plain.status?.error) plain.status = { ...plain.status, error: flat(plain.status.error) }
    this.#channel?.postMessage(plain)
  }

  #read(letter: Letter): void {
    if (letter.to !== undefined && letter.to !== this.#me) return
    if (this.#session) {
      if (isWish(letter)) this.#grant(letter, letter.from)
      return
    }
    if (isWish(letter)) return
    this.#clear('silent')
    if (letter.kind === 'lead') this.#wants.forEach((id) => this.#post(this.#follow(id)))
    this.#tell(letter)
  }

  // tell hands news to this tab's client.
  #tell(news: News): void {
    switch (news.kind) {
      case 'status': {
        const { error } = news.status
        return this.sink.connection({ ...news.status, error: error && full(error) })
      }
      case 'answer': return this.sink.answer(news.id, news.answer)
      case 'message': return this.sink.message(news.id, news.message)
      case 'ended':
        this.#wants.delete(news.id)
        return this.sink.ended(news.id, full(news.error))
      case 'other': return this.sink.other(news.message)
    }
  }

  // ask has the leader answer, and takes its place if it does not.
  #ask(): void {
    if (this.#session || this.#timers.has('silent')) return
    this.#post({ kind: 'hello' })
    this.#after('silent', SILENT, () => {
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

function until(signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve) => signal.aborted ? resolve(undefined) : signal.addEventListener('abort', resolve))
}

function isWish(letter: Letter): letter is { from: string } & Wish {
  return ['hello', 'follow', 'unfollow', 'reconnect'].includes(letter.kind)
}

function flat({ code, message, closeCode }: ShoalError): object {
  return { code, message, closeCode }
}

function full(error: ShoalError): ShoalError {
  const { code, message, closeCode } = error
  return error instanceof ShoalError ? error : new ShoalError(code, message, closeCode)
}

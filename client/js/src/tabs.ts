import type { Incoming } from './channel.js'
import { ShoalError } from './index.js'
import { answered } from './position.js'
import type { Answer, Link, Session, Sink } from './session.js'
import type { ConnectionStatus, Position, Share } from './types.js'
import { watchPage } from './wake.js'

const PROTOCOL = 1 // of the letters: tabs with different releases of this module must not read those of each other
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
  | { kind: 'hello'; wants: Want[]; errand: Errand }
  | { kind: 'follow'; want: Want }
  | { kind: 'unfollow'; id: string }
type Letter = { from: string; to?: string } & (News | Wish)

const WAITING: News = { kind: 'status', status: { state: 'waiting' } }

// Errand is what the leader's session is to do at once. A tab may be woken up while that of the leader sleeps.
type Errand = 'wake' | 'reconnect' | undefined

// Want is an upload that a tab follows, and how far the tab has received it.
type Want = [id: string, since: Position | undefined]

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
  #me = '' // another one each time that the tab takes part
  #wants = new Set<string>() // of this tab
  #channel: BroadcastChannel | undefined
  #abort = new AbortController()
  #joined = false
  #ready = false // the tab holds its own lock, by which the leader knows that it lives
  #errand: Errand // of the next hello
  #closed = false
  #session: Session | undefined // of the leader
  #others = new Map<string, Set<string>>() // the leader's: the uploads that each other tab follows
  #positions = new Map<string, Position>() // the leader's: how far all tabs have received
  #newest = new Map<string, Incoming>() // the leader's: for tabs that come later
  #status: ConnectionStatus = { state: 'connecting' }
  #told = '' // the status that this tab's client was given last
  #timers = new Map<string, ReturnType<typeof setTimeout>>()
  #unwatch: () => void

  constructor(
    private readonly name: string, private readonly open: (sink: Sink) => Session, private readonly sink: Sink,
  ) {
    this.#unwatch = watchPage(() => this.#join('wake'), () => this.#leave())
    this.#join('wake')
  }

  follow(id: string): void {
    this.#wants.add(id)
    const want = this.#want(id)
    if (this.#session) this.#grant(want, this.#me)
    else this.#wish({ kind: 'follow', want })
  }

  unfollow(id: string): void {
    this.#wants.delete(id)
    if (this.#session) this.#release(id)
    else this.#wish({ kind: 'unfollow', id })
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

  #want(id: string): Want {
    return [id, this.sink.position(id)]
  }

  // join takes part, or asks whether there is a leader where this tab already does.
  #join(errand: Errand): void {
    this.#errand = errand
    if (this.#joined) return this.#ask()
    this.#joined = true
    this.#me = crypto.randomUUID()
    this.#abort = new AbortController()
    try {
      this.#channel = new BroadcastChannel(this.name)
    } catch {
      return this.#lead() // the page has no storage, nor an origin
    }
    this.#channel.onmessage = ({ data }) => this.#read(data)
    // A leader that read a letter of this tab before the tab holds its lock would get the lock and take it for gone.
    this.#hold(this.#lock(this.#me), () => {
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
    this.#tell(WAITING)
  }

  #hush(): void {
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
        this.#hush() // without locks nothing can be shared: the page has no storage, nor an origin
        return this.#lead()
      }
      this.#resign() // another tab took this one for dead
      this.#compete()
      this.#ask()
      this.#tell(WAITING)
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
    for (const id of this.#wants) this.#grant(this.#want(id), this.#me)
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

  // serve handles the wish of another tab.
  #serve(wish: Wish, tab: string): void {
    const known = this.#remember(tab)
    switch (wish.kind) {
      case 'hello': // which repeats what was asked for, for a leader that does not know it
        this.#post({ kind: 'status', status: this.#status }, tab)
        for (const want of wish.wants) if (!known.has(want[0])) this.#grant(want, tab)
        if (wish.errand === 'wake') this.#session!.wake()
        if (wish.errand === 'reconnect') this.#session!.reconnect()
        return
      case 'follow': return this.#grant(wish.want, tab)
      case 'unfollow':
        known.delete(wish.id)
        this.#release(wish.id)
    }
  }

  // grant follows an upload for a tab, which may be this one.
  #grant([id, since]: Want, tab: string): void {
    if (tab !== this.#me) this.#remember(tab).add(id)
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
    if (this.#wants.has(id)) return
    for (const ids of this.#others.values()) if (ids.has(id)) return
    this.#session?.unfollow(id)
    this.#newest.delete(id)
    this.#positions.delete(id)
  }

  // Talking

  // wish tells the leader what has changed. Before the tab is ready it need not: hello will say all.
  #wish(wish: Wish): void {
    if (this.#ready) this.#post(wish)
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
      if (isWish(letter)) this.#serve(letter, letter.from)
      return
    }
    if (isWish(letter)) return
    this.#clear('silent')
    if (letter.kind === 'lead') this.#ask()
    this.#tell(letter)
  }

  // tell hands news to this tab's client.
  #tell(news: News): void {
    switch (news.kind) {
      case 'status': {
        const told = JSON.stringify(news.status)
        if (told === this.#told) return
        this.#told = told
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
    if (this.#session || !this.#ready) return
    const wants = [...this.#wants].map((id) => this.#want(id))
    this.#post({ kind: 'hello', wants, errand: this.#errand })
    this.#errand = undefined
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

function isWish(letter: Letter): letter is { from: string } & Wish {
  return ['hello', 'follow', 'unfollow'].includes(letter.kind)
}

function flat({ code, message, closeCode }: ShoalError): object {
  return { code, message, closeCode }
}

function full(error: ShoalError): ShoalError {
  const { code, message, closeCode } = error
  return error instanceof ShoalError ? error : new ShoalError(code, message, closeCode)
}

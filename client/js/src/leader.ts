import type { Incoming } from './channel.js'
import type { ShoalError } from './index.js'
import type { Answer, Session, Sink } from './session.js'
import type { ConnectionStatus, Position } from './types.js'

// Claim is one follow of an upload by a tab: its number differs from those of the tab's other claims, and the tab has
// received the upload's messages up to since.
export type Claim = [id: string, number: number, since: Position | undefined]

// PendingAction is an action that the leader's session must do at once. A tab may be woken up while that of the leader
// sleeps.
export type PendingAction = 'wake' | 'reconnect' | undefined

// LeaderMessage is a message of the leader. A message of an upload is for the tabs whose claim has been answered.
export type LeaderMessage =
  | { kind: 'status'; status: ConnectionStatus }
  | { kind: 'answer'; id: string; number: number; answer: Answer }
  | { kind: 'message'; id: string; message: Incoming }
  | { kind: 'ended'; id: string; number: number; error: ShoalError }
  | { kind: 'other'; message: Incoming }

// TabMessage is a message to the leader.
export type TabMessage =
  | { kind: 'hello'; claims: Claim[]; action: PendingAction }
  | { kind: 'follow'; claims: Claim[] }
  | { kind: 'unfollow'; id: string }

interface TabClaim {
  number: number
  since: Position | undefined
  answered: boolean
  asked?: boolean // the session has claimed the upload since
}

interface Upload {
  claims: Map<string, TabClaim> // by tab
  from?: Position | undefined // the position from which the session has claimed it last
  position?: Position // up to which the session has received it
  top: number // the offset of the server's answer
  due: number // the newest message is under way, with this offset or a higher one; 0: it is not
  newest?: Incoming | undefined
  expired?: boolean | undefined // the server no longer has the newest message
}

// Leader keeps the session for all tabs. Each tab's claim is answered for itself, as the server would answer it: with
// `recovered` only if all messages after its position follow, and otherwise together with the newest message. A claim
// that cannot be answered from the leader's own position has the session claim the upload again, from the lowest
// position of all; the tabs that are ahead drop the repeated messages.
export class Leader {
  #status: ConnectionStatus = { state: 'connecting' }
  #session: Session | undefined
  #closed = false
  #tabs = new Set<string>()
  #uploads = new Map<string, Upload>()

  constructor(
    private readonly open: (sink: Sink) => Session,
    // Sends a message to one tab, or to all.
    private readonly send: (message: LeaderMessage, to?: string) => void,
    // Calls back when a tab is gone.
    private readonly watch: (tab: string, gone: () => void) => void,
  ) {}

  // start connects, unless the connection has been stopped for good before.
  start(stopped: ConnectionStatus | undefined): void {
    if (stopped) this.#report(stopped)
    else this.#connect()
  }

  reconnect(): void {
    if (this.#session) this.#session.reconnect()
    else this.#connect()
  }

  close(): void {
    this.#closed = true
    this.#session?.close()
  }

  // read handles a message of a tab.
  read(message: TabMessage, tab: string): void {
    switch (message.kind) {
      case 'hello': // which repeats the claims that have not been answered
        this.send({ kind: 'status', status: this.#status }, tab)
        this.#claim(tab, message.claims)
        if (message.action === 'wake') this.#session?.wake()
        if (message.action === 'reconnect') this.reconnect()
        return
      case 'follow': return this.#claim(tab, message.claims)
      case 'unfollow': this.#release(tab, message.id)
    }
  }

  #connect(): void {
    const session = this.#session = this.open({
      connection: (status) => this.#report(status),
      position: (id) => this.#position(id),
      answer: (id, answer) => this.#answered(id, answer),
      message: (id, message) => this.#received(id, message),
      ended: (id, error) => {
        for (const [tab, { number }] of this.#uploads.get(id)!.claims) this.send({ kind: 'ended', id, number, error }, tab)
        this.#uploads.delete(id)
      },
      other: (message) => this.send({ kind: 'other', message }),
    })
    if (this.#closed) session.close() // by the application, in token()
    for (const id of this.#uploads.keys()) session.follow(id)
  }

  #report(status: ConnectionStatus): void {
    this.#status = status
    this.send({ kind: 'status', status })
  }

  #claim(tab: string, claims: Claim[]): void {
    if (!this.#tabs.has(tab)) {
      this.#tabs.add(tab)
      this.watch(tab, () => {
        this.#tabs.delete(tab)
        for (const id of this.#uploads.keys()) this.#release(tab, id)
      })
    }
    for (const [id, number, since] of claims) {
      const upload: Upload = this.#uploads.get(id) ?? { claims: new Map(), top: 0, due: 0 }
      this.#uploads.set(id, upload)
      if (upload.claims.get(tab)?.number === number) continue
      upload.claims.set(tab, { number, since, answered: false })
      if (this.#session?.isLive(id) === undefined) this.#session?.follow(id)
      else this.#serve(id, upload)
    }
  }

  #release(tab: string, id: string): void {
    const upload = this.#uploads.get(id)
    if (!upload?.claims.delete(tab) || upload.claims.size > 0) return
    this.#session?.unfollow(id)
    this.#uploads.delete(id)
  }

  // position returns the position from which the session claims an upload: the lowest of all claims.
  #position(id: string): Position | undefined {
    const upload = this.#uploads.get(id)
    if (!upload) return
    let from = upload.position
    let fresh = false
    for (const claim of upload.claims.values()) {
      const { answered, since } = claim
      claim.asked = true
      if (answered) continue
      if (!since || (from && since.epoch !== from.epoch)) fresh = true
      else if (!(since.offset >= from?.offset!)) from = since
    }
    // A claim from the newest message would not bring that message.
    if (fresh && !upload.newest && from && from === upload.position) from = { epoch: from.epoch, offset: Math.max(from.offset - 1, 0) }
    return upload.from = from
  }

  #answered(id: string, { epoch, offset, recovered, expired }: Answer): void {
    const upload = this.#uploads.get(id)!
    const { from, position } = upload
    const continued = recovered && from
    for (const claim of upload.claims.values()) {
      if (claim.answered) claim.since = position
      claim.answered = false
      // Without recovery that is known for the position that was claimed only. Others may still be possible.
      if (!continued && claim.since?.offset === from?.offset && from?.offset! < offset) claim.since = undefined
    }
    upload.top = offset
    if (continued) {
      upload.position = from
      upload.due = offset > from.offset ? offset : 0
    } else {
      upload.position = { epoch, offset }
      upload.due = expired || !offset ? 0 : 1
      upload.newest = undefined
    }
    upload.expired = expired
    this.#serve(id, upload)
  }

  #received(id: string, message: Incoming): void {
    const upload = this.#uploads.get(id)!
    const { epoch, offset } = upload.position!
    const received = message.offset ?? 0
    upload.newest = message
    if (received > offset) upload.position = { epoch, offset: received }
    if ((received || 1) >= upload.due) upload.due = 0
    this.send({ kind: 'message', id, message })
    this.#serve(id, upload)
  }

  // serve answers the claims that it can answer now.
  #serve(id: string, upload: Upload): void {
    if (!this.#session?.isLive(id)) return
    const { due, expired, newest, top } = upload
    const { epoch, offset } = upload.position!
    const highest = Math.max(top, offset)
    let again = false
    for (const [tab, claim] of upload.claims) {
      if (claim.answered) continue
      const at = claim.since?.epoch === epoch ? claim.since.offset : -1
      if (at >= offset && at <= highest) this.#answer(id, tab, claim, { epoch, offset: highest, recovered: true })
      else if (at >= 0 && (at < offset || !claim.asked)) again = true // the server may have those messages
      else if (due) continue
      else if (newest || expired || !offset) {
        this.#answer(id, tab, claim, { epoch, offset, recovered: false, expired: !newest && offset > 0 })
        if (newest) this.send({ kind: 'message', id, message: newest }, tab)
      } else again = true
    }
    if (again) this.#session.follow(id)
  }

  #answer(id: string, tab: string, claim: TabClaim, answer: Answer): void {
    claim.answered = true
    this.send({ kind: 'answer', id, number: claim.number, answer }, tab)
  }
}

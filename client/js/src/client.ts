import type { Incoming } from './channel.js'
import { ShoalError } from './errors.js'
import { answered } from './position.js'
import { Queue } from './queue.js'
import { type Answer, type Link, Session, type Sink } from './session.js'
import type {
  ConnectionStatus, Follow, FollowOptions, Gap, Message, Options, OwnMessage, Position, UploadStatus,
} from './types.js'
import { endpoint } from './url.js'

const BUFFER = 256
const IDLE: UploadStatus<any> = { state: 'idle' }

/** Shoal follows uploads over one connection, which it keeps through reconnects until close(). */
export interface Shoal<Own extends OwnMessage = never> {
  /**
   * Follows an upload: the newest message comes at once, if there is one, then all that follow, each once and in order.
   * The loop throws a ShoalError where the server refuses the upload or the connection has stopped for good.
   */
  follow(id: string, options?: FollowOptions): Follow<Message<Own>>
  /** The same with a callback. It returns the function that ends the follow. */
  follow(id: string, callback: (message: Message<Own>) => void, options?: FollowOptions): () => void
  /** The state of the connection. */
  status(): ConnectionStatus
  /** The state of an upload. */
  status(id: string): UploadStatus<Own>
  /** Calls back when the status of the connection, or of the upload, has changed. It returns the function to end that. */
  subscribe(listener: () => void, id?: string): () => void
  /** Tries at once where the client waits or has stopped. */
  reconnect(): void
  /** Ends all follows and the connection. Nothing is left behind, and the client cannot be used again. */
  close(): void
}

/**
 * connect begins to connect to a server, such as "wss://example.com/ws/uploads". It throws a ShoalError for a bad URL or
 * option.
 */
export function connect<Own extends OwnMessage = never>(url: string | URL, options: Options<Own>): Shoal<Own> {
  if (typeof options?.token !== 'function') {
    throw badOption('token', typeof options?.token, 'a function that returns a token')
  }
  for (const name of ['buffer', 'maxDelay', 'connectTimeout', 'silence'] as const) {
    const value = options[name]
    if (value !== undefined && !(value > 0)) throw badOption(name, value, 'a number above 0')
  }
  if (!options.WebSocket && !globalThis.WebSocket && options.sse === false) {
    throw badOption('WebSocket', 'missing', 'one, since this environment has none')
  }
  return new Client<Own>(endpoint(url), options)
}

function badOption(name: string, value: unknown, want: string): ShoalError {
  return new ShoalError('bad_option', `the option ${name} is ${value}, want ${want}`)
}

interface Follower {
  at?: Position | undefined // how far it has received messages, where that is not the position of the upload
  push(message: any): void
  fail(error: ShoalError): void
  stopped?(error: ShoalError): void // the connection has stopped for good
  end(): void
  stop?: () => void // ends the follow
}

interface Upload {
  followers: Set<Follower>
  status: UploadStatus<any>
  // While the newest message is expected: up to here it was seen before. Its offset may be below the position's.
  seen?: number | undefined
  dropping?: ReturnType<typeof setTimeout>
}

class Client<Own extends OwnMessage> implements Shoal<Own>, Sink {
  #uploads = new Map<string, Upload>()
  #listeners = new Set<{ id: string | undefined; listener: () => void }>()
  #connection: ConnectionStatus = { state: 'connecting' }
  #link: Link
  #options: Options<Own>

  constructor(url: URL, options: Options<Own>) {
    this.#options = options
    const open = (sink: Sink) => new Session(url, options, sink)
    this.#link = options.share?.(url.href, open, this) ?? open(this)
  }

  follow(id: string, options?: FollowOptions): Follow<Message<Own>>
  follow(id: string, callback: (message: Message<Own>) => void, options?: FollowOptions): () => void
  follow(id: string, a?: FollowOptions | ((message: Message<Own>) => void), b?: FollowOptions): any {
    checkId(id)
    const options = (typeof a === 'function' ? b : a) ?? {}
    if (typeof a === 'function') {
      return this.#add(id, options, {
        push: (message) => guarded(() => a(message)),
        fail: (error) => guarded(() => options.onError?.(error)),
        end() {},
      })
    }
    const fail = (error: ShoalError) => {
      queue.end(error)
      follower.stop!()
    }
    const follower: Follower = { push: (m) => queue.push(m), fail, stopped: fail, end: () => queue.end() }
    const queue = new Queue(id, options.buffer ?? this.#options.buffer ?? BUFFER, () => follower.stop?.())
    this.#add(id, options, follower)
    return queue
  }

  status(): ConnectionStatus
  status(id: string): UploadStatus<Own>
  status(id?: string): any {
    return id === undefined ? this.#connection : this.#uploads.get(id)?.status ?? IDLE
  }

  subscribe(listener: () => void, id?: string): () => void {
    const entry = { id, listener } // the same listener may be given twice
    this.#listeners.add(entry)
    return () => void this.#listeners.delete(entry)
  }

  reconnect(): void {
    this.#link.reconnect()
  }

  close(): void {
    if (this.#connection.state === 'closed') return
    for (const [id, upload] of this.#uploads) {
      for (const follower of upload.followers) follower.stop!()
      clearTimeout(upload.dropping)
      this.#drop(id)
    }
    this.#link.close()
    this.#listeners.clear()
  }

  // Following

  // add adds a follower and returns the function that removes it.
  #add(id: string, { signal, since }: FollowOptions, follower: Follower): () => void {
    if (this.#connection.state === 'closed' || signal?.aborted) {
      follower.end()
      return () => {}
    }
    let upload = this.#uploads.get(id)
    if (!upload) this.#uploads.set(id, upload = { followers: new Set(), status: IDLE })
    const { followers, status } = upload
    clearTimeout(upload.dropping)
    followers.add(follower)
    if (status === IDLE || status.state === 'ended') {
      upload.status = IDLE
      this.#set(id, upload, { state: 'pending', ...(since && { position: since }) })
      this.#link.follow(id)
    } else {
      const { position, message } = status
      if (since && (!position || since.epoch === position.epoch)) {
        follower.at = since
        if (!(since.offset >= position?.offset!)) this.#link.follow(id)
      } else { // the newest message, as the server would send it
        queueMicrotask(() => {
          if (since && followers.has(follower)) follower.push(gap(id))
          if (message && followers.has(follower)) follower.push(message)
        })
      }
    }
    follower.stop = () => {
      signal?.removeEventListener('abort', follower.stop!)
      follower.end()
      // An upload without followers is let go a moment later: a component that is mounted twice, or one that takes the
      // place of another, keeps it.
      if (followers.delete(follower) && followers.size === 0) upload.dropping = setTimeout(() => this.#drop(id), 0)
    }
    signal?.addEventListener('abort', follower.stop)
    if (this.#connection.state === 'stopped') follower.stopped?.(this.#connection.error!)
    return follower.stop
  }

  #drop(id: string): void {
    this.#uploads.delete(id)
    this.#link.unfollow(id)
    this.#notify(id)
  }

  #set(id: string, upload: Upload, change: Partial<UploadStatus<Own>>): void {
    upload.status = { ...upload.status, ...change }
    this.#notify(id)
  }

  #notify(id?: string): void {
    for (const entry of [...this.#listeners]) if (entry.id === id) guarded(entry.listener)
  }

  // What the link tells

  connection(status: ConnectionStatus): void {
    this.#connection = status
    if (status.state !== 'live') {
      for (const [id, upload] of this.#uploads) {
        if (upload.status.state === 'live') this.#set(id, upload, { state: 'pending' })
        if (status.state === 'stopped') for (const follower of [...upload.followers]) follower.stopped?.(status.error!)
      }
    }
    this.#notify()
  }

  // position returns the first position of those of the followers.
  position(id: string): Position | undefined {
    const upload = this.#uploads.get(id)
    let first = upload?.status.position
    for (const { at } of upload?.followers ?? []) if (at && !(at.offset >= first?.offset!)) first = at
    return first
  }

  answer(id: string, answer: Answer): void {
    const upload = this.#uploads.get(id)
    if (!upload) return
    const { epoch, offset, recovered, expired } = answer
    const { position } = upload.status
    const same = position?.epoch === epoch
    // Without recovery the newest message follows: it is new, unless it was seen in this epoch.
    upload.seen = recovered || expired ? undefined : same && position.offset <= offset ? position.offset : 0
    this.#set(id, upload, {
      state: 'live', recovered, newest: offset, position: answered(position, answer),
      ...(position && !same && { message: undefined as any }), // nobody gets the messages of a former epoch
    })
    for (const follower of [...upload.followers]) {
      const at = follower.at ?? position
      if (!at || (at.epoch === epoch && (recovered || at.offset === offset))) continue
      if (follower.at) follower.at = recovered || expired ? undefined : { epoch, offset: 0 }
      follower.push(gap(id))
    }
  }

  message(id: string, message: Incoming): void {
    const upload = this.#uploads.get(id)
    if (!upload || upload.status.state !== 'live') return
    const { epoch, offset } = upload.status.position!
    const received = message.offset ?? 0 // one without an offset is always new
    const seen = upload.seen ?? offset
    const position = { epoch, offset: Math.max(received, offset) }
    if (!received || received > seen) {
      if (received) upload.seen = undefined
      this.#set(id, upload, { message: message as any, position })
    }
    for (const follower of [...upload.followers]) {
      if (received && received <= (follower.at?.offset ?? seen)) continue
      if (follower.at && received) follower.at = received < position.offset ? { epoch, offset: received } : undefined
      follower.push(message)
    }
  }

  ended(id: string, error: ShoalError): void {
    const upload = this.#uploads.get(id)
    if (!upload) return
    this.#set(id, upload, { state: 'ended', error })
    for (const follower of [...upload.followers]) follower.fail(error)
  }

  other(message: Incoming): void {
    guarded(() => this.#options.onMessage?.(message as any))
  }
}

function gap(id: string): Gap {
  return { action: 'shoal.gap', upload_id: id, reason: 'history' }
}

// guarded calls a function of the application: an error that it throws is reported as one of an event listener is, and
// does not break the connection.
function guarded(call: () => void): void {
  try {
    call()
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}

// checkId refuses ids that the server would refuse, which would fail all other uploads of the same message.
function checkId(id: unknown): void {
  const good = typeof id === 'string' && id && new TextEncoder().encode(id).length <= 255 &&
    !/[\p{Cc}\p{Cs}\ufffd]/u.test(id)
  if (!good) {
    const want = 'want 1 to 255 bytes of Unicode without control characters'
    throw new ShoalError('bad_id', `the upload id is ${JSON.stringify(id)?.slice(0, 80)}, ${want}`)
  }
}

import { ShoalError } from './errors.js'
import { isPosition, isText } from './position.js'
import { newQueue } from './queue.js'
import { type Sharing, type Sink, openSession } from './session.js'
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
  const kind = typeof options?.token
  checkOption('token', kind === 'function', kind, 'a function')
  checkNumbers(options)
  const can = options.WebSocket || globalThis.WebSocket || options.sse !== false
  checkOption('WebSocket', can, 'missing', 'one')
  return newClient<Own>(endpoint(url), options)
}

function checkNumbers(options: Record<string, any>): void {
  for (const name of ['buffer', 'maxDelay', 'connectTimeout', 'silence']) {
    const value = options[name]
    checkOption(name, value === undefined || (typeof value === 'number' && value > 0), value, 'a number above 0')
  }
}

function checkOption(name: string, good: unknown, value: unknown, want: string): void {
  if (!good) throw new ShoalError('bad_option', `the option ${name} is ${value}, want ${want}`)
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
}

// newClient returns the client that connect() has checked the options of.
function newClient<Own extends OwnMessage>(url: URL, options: Options<Own>): Shoal<Own> {
  const uploads = new Map<string, Upload>()
  const listeners = new Map<string | undefined, Set<() => void>>() // by upload; undefined: the connection
  let connection: ConnectionStatus = { state: 'connecting' }

  // add adds a follower and returns the function that removes it.
  const add = (id: string, { signal, since }: FollowOptions, follower: Follower): () => void => {
    if (connection.state === 'closed' || signal?.aborted) {
      follower.end()
      return () => {}
    }
    const upload: Upload = uploads.get(id) ?? { followers: new Set(), status: IDLE }
    const { followers, status } = upload
    const stop = follower.stop = () => {
      signal?.removeEventListener('abort', stop)
      follower.end()
      // An upload without followers is let go at the end of the task: a component that is mounted twice, or one that takes
      // the place of another, keeps it.
      if (followers.delete(follower) && !followers.size) queueMicrotask(() => followers.size || drop(id, upload))
    }
    signal?.addEventListener('abort', stop)
    uploads.set(id, upload)
    followers.add(follower)
    // All that follows may call the application, which may end the follow.
    if (status === IDLE || status.state === 'ended') {
      upload.status = { state: 'pending', ...(since && { position: since }) }
      link.follow(id)
      notify(id)
    } else {
      const { position, message } = status
      if (!message) since ??= before(position)
      if (since && (!position || since.epoch === position.epoch)) {
        follower.at = since
        if (!(since.offset >= position?.offset!)) link.follow(id)
      } else { // the newest message, as the server would send it, unless a newer one has come before
        queueMicrotask(() => {
          const newest = upload.status.message === message && message
          for (const m of [since && gap(id), newest]) if (m && followers.has(follower)) follower.push(m)
        })
      }
    }
    if (connection.state === 'stopped') follower.stopped?.(connection.error!)
    return stop
  }

  const drop = (id: string, upload: Upload) => {
    if (uploads.get(id) !== upload) return
    uploads.delete(id)
    link.unfollow(id)
    notify(id)
  }

  const set = (id: string, upload: Upload, change: Partial<UploadStatus<Own>>) => {
    upload.status = { ...upload.status, ...change }
    notify(id)
  }

  const notify = (id?: string) => {
    each(listeners.get(id), guarded)
  }

  const sink: Sink = {
    connection(status) {
      connection = status
      for (const [id, upload] of uploads) {
        if (status.state !== 'live' && upload.status.state === 'live') set(id, upload, { state: 'pending' })
        if (status.state === 'stopped') each(upload.followers, (follower) => follower.stopped?.(status.error!))
      }
      notify()
    },

    // The first position of those of the followers.
    position(id) {
      const upload = uploads.get(id)!
      let first = upload.status.position
      for (const { at } of upload.followers) if (at && !(at.offset >= first?.offset!)) first = at
      return upload.status.position ? first : before(first) // another follower begins
    },

    answer(id, { epoch, offset, recovered, expired }) {
      const upload = uploads.get(id)
      if (!upload) return
      const { position } = upload.status
      // The answer's epoch was seen up to here before.
      const seen = position?.epoch === epoch && position.offset <= offset ? position.offset : 0
      // Without recovery the newest message follows, unless it is no longer held: it is new, unless it was seen.
      upload.seen = recovered || expired ? undefined : seen
      set(id, upload, {
        state: 'live', recovered, newest: offset,
        // Where the newest message follows, the position is before it.
        position: { epoch, offset: recovered && position ? seen : expired ? offset : Math.max(offset - 1, seen) },
        ...(position?.epoch !== epoch && { message: undefined as any }), // nobody gets the messages of a former epoch
      })
      each(upload.followers, (follower) => {
        const at = follower.at ?? position
        if (!at || (at.epoch === epoch && (recovered || at.offset === offset))) return
        if (follower.at) follower.at = recovered || expired ? undefined : { epoch, offset: 0 }
        follower.push(gap(id))
      })
    },

    message(id, message) {
      const upload = uploads.get(id)
      if (upload?.status.state !== 'live') return
      const { epoch, offset } = upload.status.position!
      const received = message.offset ?? 0 // one without an offset is always new
      const seen = upload.seen ?? offset
      const position = { epoch, offset: Math.max(received, offset) }
      if (!received || received > seen) {
        if (received) upload.seen = undefined
        set(id, upload, { message: message as any, position })
      }
      each(upload.followers, (follower) => {
        if (received && received <= (follower.at?.offset ?? seen)) return
        if (follower.at && received) follower.at = received < offset ? { epoch, offset: received } : undefined
        follower.push(message)
      })
    },

    ended(id, error) {
      const upload = uploads.get(id)
      if (!upload) return
      set(id, upload, { state: 'ended', error })
      each(upload.followers, (follower) => {
        follower.push = follower.end // nothing more comes, also if another follow of the client is allowed later
        follower.fail(error)
      })
    },

    other: (message) => guarded(() => options.onMessage?.(message as any)),
  }

  const open = (to: Sink) => openSession(url, options, to)
  const link = (options.share as Sharing | undefined)?.(url.href, open, sink) ?? open(sink)

  return {
    follow(id: string, a?: FollowOptions | ((message: Message<Own>) => void), b?: FollowOptions): any {
      checkId(id)
      const callback = typeof a === 'function' && a
      const own: any = { ...(callback ? b : a) }
      checkNumbers(own)
      own.since &&= checkedPosition(own.since)
      if (callback) {
        return add(id, own, {
          push: (message) => guarded(() => callback(message)),
          fail: (error) => guarded(() => own.onError?.(error)),
          end() {},
        })
      }
      const queue = newQueue(id, own.buffer ?? options.buffer ?? BUFFER, () => follower.stop?.())
      const fail = (error: ShoalError) => {
        queue.end(error)
        follower.stop!()
      }
      const follower: Follower = { push: queue.push, fail, stopped: fail, end: queue.end }
      add(id, own, follower)
      return queue
    },

    status: (id?: string): any => id === undefined ? connection : uploads.get(id)?.status ?? IDLE,

    subscribe(listener, id) {
      const entries = listeners.get(id) ?? new Set()
      listeners.set(id, entries)
      const entry = () => listener() // the same listener may be given twice
      entries.add(entry)
      return () => {
        if (entries.delete(entry) && !entries.size) listeners.delete(id)
      }
    },

    reconnect: () => link.reconnect(),

    close() {
      if (connection.state === 'closed') return
      link.close() // first: nothing that a listener begins now may stay
      for (const [id, upload] of uploads) {
        for (const follower of upload.followers) follower.stop!()
        drop(id, upload)
      }
      for (const entries of listeners.values()) entries.clear()
      listeners.clear()
    },
  }
}

// each calls action with those that are in a set now, unless an earlier call has removed them.
function each<T>(set: Set<T> | undefined, action: (entry: T) => void): void {
  for (const entry of [...set ?? []]) if (set!.has(entry)) action(entry)
}

// before returns a position from which the newest message comes again, if there is one.
function before(at: Position | undefined): Position | undefined {
  return at?.offset ? { ...at, offset: at.offset - 1 } : at
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
  if (!isText(id)) {
    throw new ShoalError('bad_id', `the upload id is ${JSON.stringify(id)?.slice(0, 80)}, ` +
      'want 1 to 255 bytes, no control characters')
  }
}

// checkedPosition returns a position with the members that the server takes. It refuses one that the server would refuse.
function checkedPosition(since: Position): Position {
  const { epoch, offset } = since
  checkOption('since', isPosition(since), `${epoch}:${offset}`, 'a position')
  return { epoch, offset }
}

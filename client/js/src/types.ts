import type { ShoalError } from './errors.js'

/** Position is how far an upload's messages have been received. */
export interface Position {
  epoch: string
  offset: number
}

interface Delivered {
  /** Strictly increases within an epoch. Missing where the broker gave the message none. */
  offset?: number
  /** How many older states this one replaced. */
  skipped?: number
  /** RFC 3339, UTC. */
  timestamp?: string
}

/** Progress is the newest state of an upload. */
export interface Progress extends Delivered {
  action: 'upload_progress'
  payload: {
    upload_id: string
    status: string
    stage: string
    progress_percent: number
    message: string
    error_message?: string | null
    description_audit_score?: number | null
    [member: string]: unknown
  }
}

/** Completed ends an upload well. */
export interface Completed extends Delivered {
  action: 'upload_completed'
  upload_id: string
  description: string
  audit_score: number
}

/** Failed ends an upload badly. */
export interface Failed extends Delivered {
  action: 'upload_failed'
  upload_id: string
  error_message: string
}

/**
 * Gap comes where messages are missing: load the upload's state from your own API if its events matter. The newest
 * message follows, if there is one.
 */
export interface Gap {
  action: 'shoal.gap'
  upload_id: string
  /** history: the server no longer had them. slow: the consumer of this follow did not keep up. */
  reason: 'history' | 'slow'
  /** How many messages were dropped, where that is known. */
  lost?: number
}

/** OwnMessage is the least that an application's own message has. */
export interface OwnMessage extends Delivered {
  action: string
  upload_id?: string
}

/** Message is anything that a follow delivers. `Own` are the application's own messages, as a union by `action`. */
export type Message<Own extends OwnMessage = never> = Progress | Completed | Failed | Gap | Own

/** ConnectionStatus is an immutable snapshot: it is the same object until it changes. */
export interface ConnectionStatus {
  /** waiting: for the next attempt. stopped: a final refusal, until reconnect() is called. closed: by close(). */
  readonly state: 'connecting' | 'live' | 'waiting' | 'stopped' | 'closed'
  /** While live. */
  readonly transport?: 'websocket' | 'sse'
  /** The user whom the token names, while live. */
  readonly user?: string
  /** When the next attempt begins, in ms since 1970, while waiting. */
  readonly retryAt?: number
  /** Why the connection waits or has stopped. */
  readonly error?: ShoalError | undefined
}

/** UploadStatus is an immutable snapshot: it is the same object until it changes. */
export interface UploadStatus<Own extends OwnMessage = never> {
  /**
   * idle: not followed. pending: not yet answered by the server, or the connection is down. live: nothing is missing.
   * ended: the server refuses it, see error.
   */
  readonly state: 'idle' | 'pending' | 'live' | 'ended'
  /** The newest message. */
  readonly message?: Exclude<Message<Own>, Gap>
  /** How far its messages have been received; give it to follow() as `since` to continue after a reload of the page. */
  readonly position?: Position
  /** The offset of the newest message when the server answered; 0: there was none. */
  readonly newest?: number
  /** Whether the server's answer continued without loss. */
  readonly recovered?: boolean
  /** Why the upload is no longer followed. */
  readonly error?: ShoalError
}

/**
 * Token is a JWT, or one with the time of its end where the client cannot read it from the token itself: a Date, or ms
 * since 1970. The claim `exp` is in seconds: give `exp * 1000`.
 */
export type Token = string | { token: string; expiresAt?: number | Date | undefined }

declare const share: unique symbol

/** Share decides who keeps the connection: tabs() of `@shoal/client/tabs` returns one. */
export interface Share {
  readonly [share]: true
}

/** SocketClass is what the client needs of a WebSocket: those of browsers, Node.js and the module `ws` have it. */
export type SocketClass = new (url: URL, protocol: string) => {
  readonly readyState: number
  readonly protocol: string
  onopen: ((event: any) => void) | null
  onmessage: ((event: any) => void) | null
  onclose: ((event: any) => void) | null
  onerror: ((event: any) => void) | null
  send(text: string): void
  close(code?: number): void
}

/** Options configure connect(). */
export interface Options<Own extends OwnMessage = never> {
  /**
   * Returns a token for the user, or null where nobody is logged in: then the client stops. It is called before the
   * first connection, before a token expires, and after one was refused. If it throws, it is called again later.
   */
  token: (call: { signal: AbortSignal }) => Token | null | Promise<Token | null>
  /** tabs(name) of `@shoal/client/tabs`: one connection for all tabs of the user. */
  share?: Share | undefined
  /**
   * Server-Sent Events where WebSockets are blocked: their address, or false for never. Default: the address of the
   * WebSocket with `events` in the place of `ws`, without a query.
   */
  sse?: boolean | string | undefined
  /** Messages that wait for a slow `for await` loop. Default: 256. */
  buffer?: number | undefined
  /** The longest pause between two attempts in ms. Default: 15,000. */
  maxDelay?: number | undefined
  /** Time for one attempt to connect in ms, token() included. Default: 20,000. */
  connectTimeout?: number | undefined
  /** Time without a message after which the connection is tested in ms. Default: 75,000. */
  silence?: number | undefined
  /** Gets messages that belong to no upload followed here, such as those sent to the user. */
  onMessage?: ((message: Exclude<Message<Own>, Gap>) => void) | undefined
  /** The WebSocket to use where the environment has none. */
  WebSocket?: SocketClass | undefined
}

/** FollowOptions configure one follow. */
export interface FollowOptions {
  /** Ends the follow. */
  signal?: AbortSignal | undefined
  /** Continue from a position of before. */
  since?: Position | undefined
  /** Messages that wait for a slow `for await` loop. */
  buffer?: number | undefined
  /** Callback form only: the server refused the upload, and nothing more comes. */
  onError?: ((error: ShoalError) => void) | undefined
}

/** Follow is the iterator of one followed upload. It ends with break, stop(), its signal, or the client's close(). */
export interface Follow<M> extends AsyncIterableIterator<M> {
  stop(): void
}

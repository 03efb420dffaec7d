import type { Position } from './types.js'

// Incoming is one message of the server, as it was sent.
export type Incoming = Record<string, any> & { action: string }

// Claim is an upload to follow, from its position if it has one.
export type Claim = [id: string, since: Position | undefined]

// Problem is the code and the text of an error.
export type Problem = [code: string, text: string]

// Events receives the reports of a channel. It is not called after the channel's close.
export interface Events {
  /** The channel has room for further claims. */
  room(): void
  /** How far an upload that is claimed has been received. */
  position(id: string): Position | undefined
  /** The server can be spoken to: the token may be sent. */
  open(): void
  message(message: Incoming): void
  /** The channel has ended: with a close code of the protocol, or with a problem of its own. retryAfter is in ms. */
  closed(closeCode: number, reason: string, problem?: Problem, retryAfter?: number): void
}

// Channel is one connection to the server. Its functions do nothing once it has ended.
export interface Channel {
  readonly transport: 'websocket' | 'sse'
  /** Shows the token: the first one, and later those that renew it. */
  auth(token: string): void
  /** Reports whether it can send one more change of claims now, beside these; otherwise room() is called later. */
  hasRoom(uploads: number, release: number): boolean
  /** Ends the claims of uploads and claims others. An upload may be in both lists. */
  claim(uploads: Claim[], release: string[]): void
  pong(): void
  /** Makes the server say something. */
  probe(): void
  close(): void
}

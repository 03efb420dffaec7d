/**
 * ShoalError is any error of the client. `code` is stable: branch on it; `message` names the problem, the value and the
 * remedy.
 */
export class ShoalError extends Error {
  /** One of the codes of the README's table of errors. */
  readonly code: string
  /** The close code of the WebSocket, where the connection ended with one. */
  readonly closeCode: number | undefined

  constructor(code: string, message: string, closeCode?: number, cause?: unknown) {
    super(message, { cause })
    this.name = 'ShoalError'
    this.code = code
    this.closeCode = closeCode
  }
}

// FINAL names the close codes after which the same would happen again. 4003 is not one: the next token may be good.
export const FINAL: Record<number, string> = {
  1000: 'closed',
  1008: 'limit_exceeded',
  1009: 'limit_exceeded',
  4002: 'required',
  4004: 'bad_request',
}

const PASSING: Record<number, string> = {
  1001: 'idle',
  1011: 'internal',
  1012: 'restart',
  1013: 'unavailable',
  4001: 'timeout',
  4003: 'invalid',
}

export const TOKEN_REFUSED = 4003

// closeError returns the error for the end of a connection. A code without a name is a broken network.
export function closeError(closeCode: number, reason: string, refusal?: Record<string, any>): ShoalError {
  const code = refusal?.code ?? FINAL[closeCode] ?? PASSING[closeCode] ?? 'unreachable'
  return new ShoalError(code, `connection closed: ${refusal?.message || reason || code} (${closeCode})`, closeCode)
}

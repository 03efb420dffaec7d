import type { Position } from './types.js'

// isPosition reports whether the server takes a value as a position. A message with another one is refused as a whole, with
// all other uploads in it.
export function isPosition(at: Partial<Position> | null | undefined): at is Position {
  return isText(at?.epoch) && isOffset(at?.offset)
}

export function isOffset(value: unknown): value is number {
  return Number.isSafeInteger(value) && value as number >= 0
}

// isText reports whether the server takes a value as an id or an epoch.
export function isText(value: unknown): boolean {
  return typeof value === 'string' && /^[^\p{Cc}\p{Cs}\ufffd]+$/u.test(value) && new TextEncoder().encode(value).length <= 255
}

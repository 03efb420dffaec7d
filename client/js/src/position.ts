import type { Answer } from './session.js'
import type { Position } from './types.js'

// answered returns the position after an answer. Without recovery it is before the newest message, which follows unless
// it is no longer held.
export function answered(at: Position | undefined, { epoch, offset, recovered, expired }: Answer): Position {
  const known = at?.epoch === epoch && at.offset <= offset ? at.offset : 0
  return { epoch, offset: recovered && at ? known : expired ? offset : Math.max(offset - 1, known) }
}

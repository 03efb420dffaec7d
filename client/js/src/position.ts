import type { Answer } from './session.js'
import type { Position } from './types.js'

// known returns the offset up to which an answer's epoch was seen before the answer.
export function known(at: Position | undefined, { epoch, offset }: Answer): number {
  return at?.epoch === epoch && at.offset <= offset ? at.offset : 0
}

// answered returns the position after an answer. Without recovery it is before the newest message, which follows unless
// it is no longer held.
export function answered(at: Position | undefined, answer: Answer): Position {
  const { epoch, offset, recovered, expired } = answer
  const seen = known(at, answer)
  return { epoch, offset: recovered && at ? seen : expired ? offset : Math.max(offset - 1, seen) }
}

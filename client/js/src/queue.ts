import type { Follow, Gap } from './types.js'

const STATE = 'upload_progress'

// Queue is a follow's iterator.
export interface Queue extends Follow<any> {
  push(message: any): void
  /** Ends the loop: with an error after the waiting messages, without one at once. */
  end(error?: unknown): void
}

// newQueue returns a queue in which messages wait for a consumer that is busy, at most `limit` of them. Beyond that
// older states give way to newer ones, and if that is not enough, all give way to a gap.
export function newQueue(id: string, limit: number, onStop: () => void): Queue {
  let waiting: any[] = []
  const readers: [resolve: (result: IteratorResult<any>) => void, reject: (error: unknown) => void][] = []
  let failure: unknown
  let ended = false

  const push = (message: any) => {
    if (ended) return
    waiting.push(message)
    if (waiting.length > limit) conflate()
    if (waiting.length > limit) overflow(message)
    serve()
  }

  // conflate keeps the newest state only.
  const conflate = () => {
    const states = waiting.filter((m) => m.action === STATE)
    if (!states[1]) return
    const newest = states.at(-1)
    const skipped = states.reduce((sum, m) => sum + 1 + (m.skipped ?? 0), -1)
    waiting = waiting.flatMap((m) => m === newest ? { ...m, skipped } : m.action === STATE ? [] : m)
  }

  // overflow puts a gap in the place of all but the newest message.
  const overflow = (newest: any) => {
    const lost = waiting.reduce((sum, m) => sum + (m.lost ?? 1), -1)
    waiting = [{ action: 'shoal.gap', upload_id: id, reason: 'slow', lost } satisfies Gap, newest]
  }

  const end = (error?: unknown) => {
    if (ended) return
    ended = true
    failure = error
    if (!error) waiting = []
    serve()
  }

  const serve = () => {
    while (readers[0] && (waiting[0] || ended)) {
      const [resolve, reject] = readers.shift()!
      const done = !waiting[0]
      if (done && failure) {
        reject(failure)
        failure = undefined // thrown once
      } else resolve({ done, value: waiting.shift() })
    }
  }

  const next = () => new Promise<IteratorResult<any>>((resolve, reject) => {
    readers.push([resolve, reject])
    serve()
  })

  // stop ends the follow, which ends the queue.
  const stop = () => {
    waiting = []
    onStop()
  }

  return {
    push,
    end,
    next,
    stop,
    async return() {
      stop()
      return { done: true } as IteratorReturnResult<undefined>
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}

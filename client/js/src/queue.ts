import type { Follow, Gap } from './types.js'

const STATE = 'upload_progress'

// Queue is a follow's iterator: messages wait in it for a consumer that is busy, at most `limit` of them. Beyond that
// older states give way to newer ones, and if that is not enough, all give way to a gap.
export class Queue implements Follow<any> {
  #waiting: any[] = []
  #readers: { resolve: (result: IteratorResult<any>) => void; reject: (error: unknown) => void }[] = []
  #error: unknown
  #ended = false

  constructor(private readonly id: string, private readonly limit: number, private readonly onStop: () => void) {}

  push(message: any): void {
    if (this.#ended) return
    this.#waiting.push(message)
    if (this.#waiting.length > this.limit) this.#conflate()
    if (this.#waiting.length > this.limit) this.#overflow(message)
    this.#serve()
  }

  // conflate keeps the newest state only.
  #conflate(): void {
    const newest = this.#waiting.findLast((m) => m.action === STATE)
    let skipped = 0
    this.#waiting = this.#waiting.filter((m) => {
      if (m === newest || m.action !== STATE) return true
      skipped += 1 + (m.skipped ?? 0)
      return false
    })
    if (skipped === 0) return
    this.#waiting[this.#waiting.indexOf(newest)] = { ...newest, skipped: (newest.skipped ?? 0) + skipped }
  }

  // overflow puts a gap in the place of all but the newest message.
  #overflow(newest: any): void {
    const lost = this.#waiting.reduce((sum, m) => sum + (m.lost ?? 1), -1)
    this.#waiting = [{ action: 'shoal.gap', upload_id: this.id, reason: 'slow', lost } satisfies Gap, newest]
  }

  // end lets the consumer have the waiting messages, and then the error or the end.
  end(error?: unknown): void {
    if (this.#ended) return
    this.#ended = true
    this.#error = error
    this.#serve()
  }

  #serve(): void {
    while (this.#readers.length > 0 && (this.#waiting.length > 0 || this.#ended)) {
      const { resolve, reject } = this.#readers.shift()!
      const error = this.#error
      if (this.#waiting.length > 0) resolve({ done: false, value: this.#waiting.shift() })
      else if (error) {
        this.#error = undefined // thrown once
        reject(error)
      } else resolve({ done: true, value: undefined })
    }
  }

  next(): Promise<IteratorResult<any>> {
    return new Promise((resolve, reject) => {
      this.#readers.push({ resolve, reject })
      this.#serve()
    })
  }

  // stop ends the follow; waiting messages are dropped.
  stop(): void {
    this.#waiting = []
    this.end()
    this.onStop()
  }

  async return(): Promise<IteratorResult<any>> {
    this.stop()
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}

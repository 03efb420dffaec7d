// Sends files to the development server, a few at a time, and again where the connection or the server broke.
// How far they are is not its business: that is what the server reports to everyone who follows.

const AT_ONCE = 3
const MOST_ATTEMPTS = 6
const FIRST_DELAY = 500 // ms; doubled with each attempt
const PASSING = [408, 409, 429, 500, 502, 503, 504] // answers that another attempt may change

export class Uploader {
  #jobs = new Map() // id → {file, attempts, request, timer}
  #online = false
  #events

  // onBroken(id): the file will be sent again. onFailed(id, reason, again): it will not; again: a retry by
  // hand makes sense.
  constructor(events) {
    this.#events = events
  }

  has(id) {
    return this.#jobs.has(id)
  }

  get busy() {
    return this.#jobs.size > 0
  }

  add(id, file) {
    this.cancel(id)
    this.#jobs.set(id, { file, attempts: 0, request: null, timer: null })
    this.#pump()
  }

  cancel(id) {
    const job = this.#jobs.get(id)
    this.#jobs.delete(id)
    clearTimeout(job?.timer)
    job?.request?.abort()
  }

  // setOnline says whether the server can be reached: without it nothing is begun.
  setOnline(online) {
    this.#online = online
    this.#pump()
  }

  #pump() {
    if (!this.#online) return
    let running = [...this.#jobs.values()].filter((job) => job.request).length
    for (const [id, job] of this.#jobs) {
      if (running >= AT_ONCE) return
      if (job.request || job.timer) continue
      running++
      this.#send(id, job)
    }
  }

  async #send(id, job) {
    job.request = new AbortController()
    const address = `/demo/uploads/${encodeURIComponent(id)}?${new URLSearchParams({ name: job.file.name })}`
    let reason = 'The connection broke too often.'
    let passing = true
    try {
      const answer = await fetch(address, {
        method: 'POST', body: job.file, signal: job.request.signal,
        headers: { 'Content-Type': 'application/octet-stream' },
      })
      if (!answer.ok) {
        passing = PASSING.includes(answer.status)
        const problem = await answer.json().catch(() => ({}))
        reason = problem.detail ?? `The server answered ${answer.status}.`
      } else {
        reason = null
      }
    } catch {
      // The connection broke, or the file can no longer be read.
    }
    if (this.#jobs.get(id) !== job) return // cancelled, or begun anew
    job.request = null
    if (reason === null) this.#jobs.delete(id)
    else this.#broken(id, job, reason, passing)
    this.#pump()
  }

  #broken(id, job, reason, passing) {
    job.attempts++
    if (!passing || job.attempts >= MOST_ATTEMPTS) {
      this.#jobs.delete(id)
      this.#events.onFailed(id, reason, passing)
      return
    }
    const delay = Math.random() * FIRST_DELAY * 2 ** job.attempts
    job.timer = setTimeout(() => {
      job.timer = null
      this.#pump()
    }, delay)
    this.#events.onBroken(id)
  }
}

// A client of the protocol shoal.v1: one WebSocket, any number of uploads, through reconnects.
//
//   const client = new ShoalClient({ url, token, onState, onUpload, onMessage, onRefused })
//   client.connect()
//   client.follow(uploadId)
//
// token()                      returns a promise of {token, expiresAt} (expiresAt in ms, or undefined)
// onState(state)               {name: 'connecting' | 'live'}, {name: 'waiting', retryAt} or {name: 'stopped', reason}
// onUpload(id, answer)         the server answered that the upload is followed: {epoch, offset, recovered}
// onMessage(id, message)       a message of the upload, each of them once and in order
// onRefused(id, reason)        the server refused to let this user follow the upload
//
// An upload is followed from a position, {epoch, offset}. The answer to a subscription is a barrier: what came
// of that upload before it, on the same connection, belongs to another connection's claim and is ignored. After
// it the server sends what was missed, or the newest message where it cannot, and then all that follows.

const FIRST_DELAY = 500 // ms; doubled with each attempt that fails
const LONGEST_DELAY = 15_000
const STEADY = 5_000 // a connection that lived this long was a good one: the next delay is short again
const CONNECT_TIMEOUT = 10_000
const SILENCE = 75_000 // the server pings each 30 s
const RENEW_BEFORE = 60_000 // before a token expires
const LONGEST_TIMER = 2 ** 31 - 1
const RESUME_BATCH = 100 // uploads in one message, which stays well below the server's 64 KiB

// What the client does after a close code; any other code means: reconnect.
const STOP = {
  1000: 'The server closed the connection.',
  1008: 'The server closed the connection: a limit was exceeded.',
  4001: 'The server got no token in time.',
  4002: 'The server got no token.',
  4003: 'The server does not accept the token.',
  4004: 'The server did not understand this page.',
}
const INVALID_TOKEN = 4003

export class ShoalClient {
  #options
  #socket = null
  #uploads = new Map() // id → {epoch, offset, live}; live: the barrier is passed
  #authenticated = false
  #attempts = 0
  #liveSince = 0
  #retryAfter = null
  #token = null
  #tokenRefused = false
  #stopped = true
  #timers = new Map()
  #generation = 0 // a connect that was overtaken must not go on

  constructor(options) {
    this.#options = { onState() {}, onUpload() {}, onMessage() {}, onRefused() {}, ...options }
  }

  // connect begins, or tries again at once where the client waits or has stopped.
  async connect() {
    if (this.#socket) return
    this.#stopped = false
    const generation = ++this.#generation
    this.#clearTimers()
    this.#options.onState({ name: 'connecting' })
    try {
      this.#token = await this.#freshToken()
    } catch {
      if (generation === this.#generation && !this.#stopped) this.#reconnectLater()
      return
    }
    if (generation === this.#generation && !this.#stopped) this.#open()
  }

  close() {
    this.#stopped = true
    this.#clearTimers()
    this.#socket?.close(1000)
    this.#drop()
  }

  follow(id) {
    if (this.#uploads.has(id)) return
    this.#uploads.set(id, { epoch: null, offset: 0, live: false })
    if (this.#authenticated) this.#send({ action: 'subscribe_upload', upload_id: id })
  }

  unfollow(id) {
    if (this.#uploads.delete(id) && this.#authenticated) this.#send({ action: 'unsubscribe_upload', upload_id: id })
  }

  async #freshToken() {
    const held = this.#token
    const good = held && !this.#tokenRefused && !(held.expiresAt - Date.now() < RENEW_BEFORE)
    return good ? held : this.#options.token()
  }

  #open() {
    const socket = new WebSocket(this.#options.url, 'shoal.v1')
    this.#socket = socket
    this.#after('connect', CONNECT_TIMEOUT, () => this.#lost())
    socket.onopen = () => this.#send({ type: 'auth', token: this.#token.token })
    socket.onmessage = (event) => {
      this.#after('silence', SILENCE, () => this.#lost())
      this.#receive(JSON.parse(event.data))
    }
    socket.onclose = (event) => this.#closed(event.code, event.reason)
  }

  #receive(message) {
    switch (message.action) {
      case 'auth_success': return this.#live()
      case 'auth_error': return // the close code that follows says what to do
      case 'ping': return this.#send({ action: 'pong' })
      case 'reconnect': this.#retryAfter = message.retry_after_ms; return
      case 'subscribed': return this.#followed(message.upload_id, message)
      case 'resumed':
        for (const [id, answer] of Object.entries(message.uploads)) this.#followed(id, answer)
        return
      case 'unsubscribed': return
      case 'error': return this.#refused(message)
    }
    this.#deliver(message.upload_id ?? message.payload?.upload_id, message)
  }

  #live() {
    if (this.#authenticated) return // a renewed token
    this.#authenticated = true
    this.#tokenRefused = false
    this.#liveSince = Date.now()
    this.#clear('connect')
    this.#renewInTime()
    this.#followAll()
    this.#options.onState({ name: 'live' })
  }

  #followAll() {
    let known = []
    for (const [id, upload] of this.#uploads) {
      if (upload.epoch === null) this.#send({ action: 'subscribe_upload', upload_id: id })
      else known.push([id, { epoch: upload.epoch, offset: upload.offset }])
    }
    for (; known.length > 0; known = known.slice(RESUME_BATCH)) {
      this.#send({ action: 'resume', uploads: Object.fromEntries(known.slice(0, RESUME_BATCH)) })
    }
  }

  #followed(id, { epoch, offset, recovered }) {
    const upload = this.#uploads.get(id)
    if (!upload) return
    // Not recovered: the newest message follows, whatever this client had seen of an earlier epoch.
    if (!recovered) upload.offset = 0
    upload.epoch = epoch
    upload.live = true
    this.#options.onUpload(id, { epoch, offset, recovered })
  }

  #deliver(id, message) {
    const upload = this.#uploads.get(id)
    if (!upload?.live) return
    if (message.offset !== undefined) {
      if (message.offset <= upload.offset) return
      upload.offset = message.offset
    }
    this.#options.onMessage(id, message)
  }

  #refused({ upload_id: id, message }) {
    if (this.#uploads.delete(id)) this.#options.onRefused(id, message)
  }

  #closed(code, reason) {
    this.#drop()
    this.#clearTimers()
    if (this.#stopped) return
    const again = code === INVALID_TOKEN && !this.#tokenRefused
    this.#tokenRefused = code === INVALID_TOKEN
    if (again) return this.connect() // once, with a fresh token
    if (code in STOP) {
      this.#stopped = true
      this.#options.onState({ name: 'stopped', reason: reason ? `${STOP[code]} (${reason})` : STOP[code] })
      return
    }
    this.#reconnectLater()
  }

  // lost gives a connection up without waiting for it to notice.
  #lost() {
    this.#socket?.close()
    this.#closed(1006, '')
  }

  // drop lets go of the socket: nothing that it still has to say counts.
  #drop() {
    if (this.#socket) this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null
    this.#socket = null
    this.#authenticated = false
    for (const upload of this.#uploads.values()) upload.live = false
    if (this.#liveSince && Date.now() - this.#liveSince >= STEADY) this.#attempts = 0
    this.#liveSince = 0
  }

  // reconnectLater waits as long as the server asked for, or a random part of a doubling delay: clients that
  // were cut off together must not come back together.
  #reconnectLater() {
    const delay = this.#retryAfter ?? Math.random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#attempts)
    this.#retryAfter = null
    this.#attempts++
    this.#options.onState({ name: 'waiting', retryAt: Date.now() + delay })
    this.#after('retry', delay, () => this.connect())
  }

  // renewInTime shows a fresh token before the old one expires, so that the connection lives on.
  #renewInTime() {
    const { expiresAt } = this.#token
    if (expiresAt === undefined) return
    const delay = Math.max(expiresAt - Date.now() - RENEW_BEFORE, RENEW_BEFORE / 4)
    this.#after('renew', Math.min(delay, LONGEST_TIMER), async () => {
      const generation = this.#generation
      try {
        const token = await this.#options.token()
        if (generation !== this.#generation || !this.#authenticated) return
        this.#token = token
        this.#send({ type: 'auth', token: token.token })
      } catch {
        // Tried again below; without a fresh token the server ends the connection, and then a new one is asked for.
      }
      if (generation === this.#generation && this.#authenticated) this.#renewInTime()
    })
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message))
  }

  #after(name, delay, action) {
    this.#clear(name)
    this.#timers.set(name, setTimeout(action, delay))
  }

  #clear(name) {
    clearTimeout(this.#timers.get(name))
    this.#timers.delete(name)
  }

  #clearTimers() {
    for (const name of [...this.#timers.keys()]) this.#clear(name)
  }
}

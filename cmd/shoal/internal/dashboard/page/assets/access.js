// access.js keeps the API key of this tab and sends requests with it.

const STORED = 'shoal-key'

// viewer is the random id by which the page stays itself when its token is renewed.
const viewer = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0'))
  .join('')

// Refused is an answer of the server that is no success.
export class Refused extends Error {
  constructor(status, detail) {
    super(detail)
    this.status = status
  }
}

export class Access {
  #key = ''
  reads = false
  acts = false

  constructor(onChange) {
    this.onChange = onChange
    try {
      this.#key = sessionStorage.getItem(STORED) ?? ''
    } catch {
      // The browser keeps nothing for pages; then the key lasts until the next reload.
    }
  }

  get hasKey() {
    return this.#key !== ''
  }

  // use keeps a key from now on, '' for none, if the server accepts it.
  async use(key) {
    if (/[^!-~]/.test(key)) throw new Refused(401, 'a key has visible ASCII characters only')
    this.#keep(key, await this.#grant(key))
  }

  // token returns a token for the stream. A key that the server no longer accepts is forgotten, unless another one has
  // been entered in the meantime.
  async token() {
    const asked = this.#key
    let key = asked
    let granted
    try {
      granted = await this.#grant(key)
    } catch (error) {
      if (![401, 403].includes(error.status) || !key) throw error
      key = ''
      granted = await this.#grant(key)
    }
    if (this.#key === asked) this.#keep(key, granted)
    return { token: granted.token, expiresAt: Date.parse(granted.expires_at) }
  }

  // grant asks what this page may do with a key.
  #grant(key) {
    return this.request('GET', `token?viewer=${viewer}`, undefined, key)
  }

  #keep(key, { reads, acts }) {
    this.#key = key
    try {
      if (key) sessionStorage.setItem(STORED, key)
      else sessionStorage.removeItem(STORED)
    } catch {
      // The browser keeps nothing for pages.
    }
    if (reads === this.reads && acts === this.acts) return
    this.reads = reads
    this.acts = acts
    this.onChange()
  }

  // request returns the answer to a request to an address beside the page, or throws Refused.
  async request(method, address, body, key = this.#key) {
    const response = await fetch(address, {
      method, cache: 'no-store', signal: AbortSignal.timeout(10_000),
      headers: {
        ...(key && { Authorization: `Bearer ${key}` }),
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      body,
    })
    const answer = await response.json().catch(() => null)
    if (!response.ok) {
      const { detail } = answer ?? {}
      throw new Refused(response.status, typeof detail === 'string' && detail || `the server answers with status ${response.status}`)
    }
    // All answers are objects. Another one is the login page of a proxy, for example.
    if (!answer) throw new Refused(response.status, 'the answer is not from Shoal; a proxy may want a login: reload the page')
    return answer
  }
}

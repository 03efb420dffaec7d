import type { Channel, Claim, Events, Incoming } from './channel.js'
import type { SocketClass } from './types.js'

const MAX_UPLOADS = 64 // of one stream
const MAX_STREAMS = 4 // a browser allows six connections to a server of HTTP/1.1, and the page needs some
const MAX_QUERY = 6400 // of the ids of one stream: proxies take addresses of 8 KiB
const MAX_EVENT = 4 << 20 // characters, as the client in Go takes bytes
const MAX_PROBLEM = 1 << 16 // characters of the body of a refusal
const GATHER = 20 // ms in which changes become one request
const FIRST_TRIAL = 10_000
const NEXT_TRIAL = 300_000

// openStream connects by Server-Sent Events: fetch rather than EventSource, which can neither send the token in a
// header nor tell why the server has refused it.
export function openStream(
  url: URL, Socket: SocketClass | undefined, events: Events, address: string | boolean | undefined,
): Channel {
  const path = typeof address === 'string' ? address : url.pathname.replace(/ws(\/[^/]*)$/, 'events$1')
  const endpoint = new URL(path, url)
  endpoint.protocol = endpoint.protocol.replace('ws', 'http')
  const claimed = new Set<string>()
  let abort = new AbortController()
  let token: string
  let known = false // to be a Shoal server: the token is not sent to any other
  let accepted = false // by the server, the token that was shown last
  let timer: ReturnType<typeof setTimeout> | undefined
  let trialTimer: ReturnType<typeof setTimeout> | undefined
  let trial: InstanceType<SocketClass> | undefined

  const close = () => {
    abort.abort()
    clearTimeout(timer)
    clearTimeout(trialTimer)
    if (trial) {
      trial.onopen = trial.onclose = null
      trial.close()
    }
  }
  const end: Events['closed'] = (...why) => {
    close()
    events.closed(...why)
  }
  const fail = (code: string, text: string, retryAfter?: number) => {
    end(0, '', [code, `${endpoint.host}: ${text}`], retryAfter)
  }
  const accept = () => {
    const action = accepted ? 'ping' : 'auth_success' // a ping is a sign of life
    accepted = true
    events.message({ action })
  }
  // reopen opens the streams for the uploads, again where others were added or the token is a new one. The former
  // streams end at once: their messages may precede the position from which an upload is claimed again.
  const reopen = (wait = GATHER) => {
    abort.abort()
    timer ??= setTimeout(() => {
      timer = undefined
      abort = new AbortController()
      const groups = groupsOf(known ? claimed : [])
      groups.slice(0, MAX_STREAMS).forEach((ids, i) => read(ids, abort.signal, i))
      const beyond = groups.slice(MAX_STREAMS).flat()
      if (beyond[0]) refuse(beyond, 'limit_exceeded', 'too many without WebSockets')
    }, wait)
  }
  const refuse = (ids: string[], code: string, message: string) => {
    for (const id of ids) claimed.delete(id)
    events.message({ action: 'error', code, message, upload_ids: ids })
  }

  // read reads one stream to its end. Without uploads it only finds out whether the server is there and Shoal.
  const read = async (ids: string[], signal: AbortSignal, i: number) => {
    try {
      const last = await lastEventId(ids, events.position)
      const stream = new URL(endpoint) // which may have a query of its own
      for (const id of ids) stream.searchParams.append('id', id)
      const response = await fetch(stream, {
        signal, cache: 'no-store',
        headers: { ...(known && { Authorization: `Bearer ${token}` }), ...(last && { 'Last-Event-ID': last }) },
      })
      const type = response.headers.get('Content-Type') ?? ''
      const pieces = piecesOf(response.body!)
      if (!type.startsWith('text/event-stream')) {
        // Another body may have no end. That of a problem may be anything, null too.
        let text = ''
        if (/json/.test(type)) for await (const piece of pieces) if ((text += piece).length > MAX_PROBLEM) break
        return signal.aborted || refused(response, parse(text) || {}, ids)
      }
      const retry = await readEvents(pieces, signal, accept, (data) => receive(data, i ? ids : undefined))
      if (signal.aborted) return
      if (retry === undefined) fail('not_shoal', 'an event is too long')
      else fail('unreachable', 'stream ended', retry)
    } catch (error) {
      if (!signal.aborted) fail('unreachable', (error as Error).message)
    }
  }

  const refused = (response: Response, { detail, code, field }: Record<string, any>, ids: string[]) => {
    const { status } = response
    const after = Number(response.headers.get('Retry-After')) * 1000
    if (status === 400 && field === 'id' && ids.length === 0) {
      known = true
      if (claimed.size === 0) accept()
      else reopen(0)
    } else if (known && status === 401) { // without a token others may answer so
      events.message({ action: 'auth_error', code, message: detail })
      end(4003, '')
    } else if (known && status === 403 && detail) {
      accept()
      refuse(ids, 'forbidden', detail)
    } else if (status === 429 || status === 503) fail('unavailable', detail ?? status, after)
    else fail('not_shoal', `${endpoint.pathname} answers ${status} ${detail ?? 'without events'}`)
  }

  // receive handles an event. Messages to the user come on each stream and are wanted once: of all streams but the first
  // only events that concern their uploads, or the stream itself.
  const receive = (data: string, only?: string[]) => {
    const message: Incoming | undefined = parse(data)
    if (typeof message?.action === 'string') {
      const { action, upload_id: id = message.payload?.upload_id } = message
      if (!only || /^(auth_error|error|reconnect)$/.test(action) || only.includes(id)) events.message(message)
    } else if (message && message.code > 0) end(message.code, `${message.reason}`) // the last event
    else fail('not_shoal', 'an event has no action')
  }

  const tryLater = (delay: number) => {
    if (!Socket) return
    trialTimer = setTimeout(() => {
      // WebSockets may only have failed while the server restarted.
      try {
        trial = new Socket(url, 'shoal.v1')
        trial.onopen = () => trial!.protocol ? fail('restart', 'WebSockets work again', 0) : trial!.close()
        trial.onerror = () => {}
        trial.onclose = () => tryLater(NEXT_TRIAL)
      } catch { // the policy of the page, for example
        tryLater(NEXT_TRIAL)
      }
    }, delay * (0.5 + Math.random()))
  }
  tryLater(FIRST_TRIAL)
  queueMicrotask(() => events.open())

  return {
    transport: 'sse',
    auth(fresh) {
      // The error of fetch may repeat it.
      if (/[^ -~]/.test(fresh)) return fail('token', 'the token fits no header')
      token = fresh
      accepted = false
      reopen()
    },
    hasRoom: () => true,
    claim(uploads: Claim[], release) {
      for (const id of release) {
        claimed.delete(id)
        events.message({ action: 'unsubscribed', upload_id: id })
      }
      for (const [id] of uploads) claimed.add(id)
      if (uploads.length > 0 || release.length > 0) reopen()
    },
    pong() {},
    probe: () => reopen(0),
    close,
  }
}

// groupsOf divides uploads among streams. There is one at least. A short id counts as if MAX_UPLOADS of it filled a query.
function groupsOf(uploads: Iterable<string>): string[][] {
  const groups: string[][] = [[]]
  let size = 0
  for (const id of uploads) {
    const more = Math.max(encodeURIComponent(id).length + 4, MAX_QUERY / MAX_UPLOADS)
    size += more
    if (size > MAX_QUERY) {
      groups.push([])
      size = more
    }
    groups.at(-1)!.push(id)
  }
  return groups
}

// piecesOf returns the text of a body as it comes.
async function* piecesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    yield decoder.decode(value, { stream: true })
  }
}

// readEvents hands on the data of each event, and calls alive whenever something comes, such as a comment. A proxy may
// answer long before the server does. It returns the retry time that the server has set, or undefined where an event was
// too long.
async function readEvents(
  pieces: AsyncIterable<string>, signal: AbortSignal, alive: () => void, receive: (data: string) => void,
): Promise<number | undefined> {
  let rest = ''
  let data = ''
  let retry = 0
  for await (const piece of pieces) {
    if (signal.aborted) break
    alive()
    const lines = (rest + piece).split(/\r?\n/)
    rest = lines.pop()!
    for (const line of lines) {
      if (line.startsWith('data:')) data += (data && '\n') + line.slice(5).trimStart()
      else if (line.startsWith('retry:')) retry = Number(line.slice(6))
      else if (line === '' && data) {
        const text = data
        data = ''
        receive(text)
        await null // as between two messages of a WebSocket: work that the first one has left comes before the next one
        if (signal.aborted) return retry
      }
    }
    if (rest.length + data.length > MAX_EVENT) return undefined
  }
  return retry
}

function parse(text: string): any {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

// lastEventId returns the id of an event after which the streams of these uploads continue: epoch:offset for one
// upload, else tag=epoch:offset,… with a tag that is derived from the upload's id.
async function lastEventId(ids: string[], position: Events['position']): Promise<string> {
  const parts: string[] = []
  for (const id of ids) {
    const at = position(id)
    if (!at?.epoch) continue
    const epoch = encodeURIComponent(at.epoch).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`)
    const name = ids.length > 1 ? await tag(id) : ''
    if (name !== undefined) parts.push(`${name}${epoch}:${at.offset}`)
  }
  return parts.join()
}

// tag returns undefined where the page is not served over https: such an upload begins with its newest message.
async function tag(id: string): Promise<string | undefined> {
  const sum = await globalThis.crypto?.subtle?.digest('SHA-256', new TextEncoder().encode(id))
  if (!sum) return undefined
  const text = btoa(String.fromCharCode(...new Uint8Array(sum, 0, 6)))
  return `${text.replace(/\+/g, '-').replace(/\//g, '_')}=`
}

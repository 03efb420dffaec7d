import type { Channel, Events } from './channel.js'
import type { Position, SocketClass } from './types.js'

const PROTOCOL = 'shoal.v1'
const BATCH = 100 // uploads in one message, which stays below the server's 64 KiB with the longest ids
const SINGLE = 20 // more uploads than that are never subscribed to one by one
const BURST = 150 // messages at once, and RATE a second after them: less than the server allows
const RATE = 40

// openSocket connects by WebSocket. The token is not sent to a server that has not chosen shoal.v1.
export function openSocket(url: URL, Socket: SocketClass, events: Events): Channel {
  const socket = new Socket(url, PROTOCOL)
  let budget = BURST
  let timer: ReturnType<typeof setTimeout> | undefined

  const send = (message: object) => socket.readyState === 1 && socket.send(JSON.stringify(message))
  // spend counts the messages of claims. A client that sends too many at once is closed with 1008.
  const spend = (message: object) => {
    send(message)
    budget--
    refill()
  }
  const refill = () => {
    timer ??= setTimeout(() => {
      timer = undefined
      budget = Math.min(budget + RATE, BURST)
      if (budget < BURST) refill()
      events.room()
    }, 1000)
  }
  const close = () => {
    clearTimeout(timer)
    // One that is closed before it has opened reports an error, which is none.
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = () => {}
    socket.close(1000)
  }
  const fail = () => {
    close()
    events.closed(0, '', ['not_shoal', `${url.host}${url.pathname} does not speak ${PROTOCOL}`])
  }

  socket.onopen = () => socket.protocol === PROTOCOL ? events.open() : fail()
  socket.onmessage = ({ data }) => {
    // An error that is thrown here would end a process of Node.js.
    try {
      const message = JSON.parse(data)
      if (typeof message.action === 'string') return events.message(message)
    } catch {}
    fail()
  }
  socket.onclose = ({ code, reason }) => events.closed(code, reason)
  // Node.js 20 reports no end of a socket that never opened.
  socket.onerror = () => socket.readyState === 1 || events.closed(1006, '')
  return {
    transport: 'websocket',
    auth: (token) => send({ type: 'auth', token }),
    // At most SINGLE uploads are claimed one by one, more of them in batches.
    hasRoom: (uploads, release) => release + Math.min(uploads, SINGLE + uploads / BATCH) < budget,
    claim(uploads, release) {
      const batch: [string, Position][] = []
      for (const id of release) spend({ action: 'unsubscribe_upload', upload_id: id })
      for (const [id, since] of uploads) {
        // No epoch is empty: an upload that has no position is answered with recovered: false and its newest message, as
        // a subscription would be.
        if (since || uploads.length > SINGLE) batch.push([id, since ?? { epoch: '', offset: 0 }])
        else spend({ action: 'subscribe_upload', upload_id: id })
      }
      while (batch[0]) spend({ action: 'resume', uploads: Object.fromEntries(batch.splice(0, BATCH)) })
    },
    pong: () => send({ action: 'pong' }),
    probe: () => send({ action: 'resume', uploads: {} }),
    close,
  }
}

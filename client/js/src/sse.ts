import type { Channel, Events } from './channel.js'

// openStream connects by Server-Sent Events.
export function openStream(url: URL, _Socket: typeof WebSocket | undefined, events: Events): Channel {
  const timer = setTimeout(() => events.closed(0, '', ['unreachable', `no stream at ${url.host}`]), 0)
  return { transport: 'sse', auth() {}, claim() {}, pong() {}, probe() {}, close: () => clearTimeout(timer) }
}

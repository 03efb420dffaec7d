import { ShoalError } from './errors.js'

// endpoint returns the WebSocket's address: http becomes ws, a path may be relative to the page, and no path is the
// standard one.
export function endpoint(given: string | URL): URL {
  const page = globalThis.location
  let url!: URL // undefined where the address cannot be parsed
  try {
    url = new URL(given, page?.href)
    url.protocol = url.protocol.replace('http', 'ws')
  } catch {}
  if (!/^wss?:/.test(url?.protocol)) {
    throw new ShoalError('bad_url', `the URL is "${given}", want one like "wss://host"`)
  }
  // Browsers regard local hosts as secure without TLS.
  if (url.protocol === 'ws:' && page?.protocol === 'https:' && !/localhost$|^127\.|^\[::1/.test(url.hostname)) {
    throw new ShoalError('insecure', `a page over https needs "wss:" for ${url.host}`)
  }
  if (url.pathname === '/') url.pathname = '/ws/uploads'
  return url
}

// watchPage calls back when the network or the page comes back, and when the page goes away or into the back/forward
// cache. It returns the function that stops watching. Where there is no page it does nothing.
export function watchPage(back: () => void, away: () => void): () => void {
  const types = ['online', 'offline', 'pageshow', 'visibilitychange', 'pagehide'] // offline: the connection is tested
  const listener = ({ type }: Event) => {
    if (type === 'pagehide') away()
    else if (type !== 'visibilitychange' || document.visibilityState === 'visible') back()
  }
  const abort = new AbortController()
  for (const type of types) globalThis.addEventListener?.(type, listener, abort)
  return () => abort.abort()
}

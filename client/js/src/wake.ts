// watchPage calls back when the network or the page comes back, and when the page goes away or into the back/forward
// cache. It returns the function that stops watching. Where there is no page it does nothing.
export function watchPage(back: () => void, away: () => void): () => void {
  const listener = ({ type, persisted }: PageTransitionEvent) => {
    if (type === 'pagehide') away()
    // Of the other events only pageshow has `persisted`: false where the page has just been loaded.
    else if (persisted ?? (type !== 'visibilitychange' || !document.hidden)) back()
  }
  const abort = new AbortController()
  // offline: the connection is tested
  for (const type of ['online', 'offline', 'pageshow', 'visibilitychange', 'pagehide']) {
    globalThis.addEventListener?.(type, listener as EventListener, abort)
  }
  return () => abort.abort()
}

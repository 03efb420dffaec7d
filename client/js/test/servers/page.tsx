// What the pages of the browser tests can do.

import { StrictMode } from 'react'
import { type Root, createRoot } from 'react-dom/client'
import { connect } from '../../src/index.js'
import { ShoalProvider, useConnection, useUpload } from '../../src/react.js'
import { tabs } from '../../src/tabs.js'

async function token(seconds: number): Promise<string> {
  return (await fetch(`/token?seconds=${seconds}`)).text()
}

interface Given {
  share?: string
  seconds?: number
  hideExpiry?: boolean
  silence?: number
  sse?: boolean
}

// follow follows uploads and keeps what comes in seen.
function follow(url: string, ids: string[], { share, seconds = 3600, hideExpiry, ...options }: Given = {}): void {
  const seen: unknown[] = []
  const states: string[] = [] // and the codes of errors
  let tokens = 0
  const shoal = connect<any>(url, {
    token: async () => {
      const next = await token(tokens++ === 0 ? seconds : 3600)
      return hideExpiry ? { token: next, expiresAt: Infinity } : next
    },
    ...(share && { share: tabs(share) }),
    ...options,
  })
  shoal.subscribe(() => {
    const { state, error } = shoal.status()
    states.push(state, ...(error ? [error.code] : []))
  })
  for (const id of ids) shoal.follow(id, (m: any) => seen.push(m.n ?? m.reason ?? m.payload.progress_percent))
  Object.assign(window, { shoal, seen, states })
}

function Bar({ id }: { id: string }) {
  const { state, message } = useUpload(id)
  return <p id={`bar-${id}`}>{state} {message?.action === 'upload_progress' ? message.payload.progress_percent : '-'}</p>
}

function Connection() {
  return <p id="connection">{useConnection().state}</p>
}

let root: Root | undefined

// render shows bars of these uploads, and with null nothing at all.
function render(url: string, ids: string[] | null): void {
  root ??= createRoot(document.getElementById('root')!)
  root.render(ids && (
    <StrictMode>
      <ShoalProvider url={url} token={() => token(3600)}>
        <Connection />
        {ids.map((id, i) => <Bar key={i} id={id} />)}
      </ShoalProvider>
    </StrictMode>
  ))
}

Object.assign(window, { follow, render })

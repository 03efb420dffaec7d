import { useState } from 'react'
import { useConnection, useUpload } from '@shoal/client/react'

export function Upload({ id }: { id: string }) {
  const [lines, setLines] = useState<string[]>([])
  const { message, state, error } = useUpload<{ action: 'log'; line: string }>(id, (m) => {
    if (m.action === 'log') setLines((all) => [...all, m.line])
  })
  const connection = useConnection()
  if (error) return <p>Refused: {error.message}</p>
  return (
    <main>
      <p id="connection">{connection.state}</p>
      <p id="upload">{state}</p>
      {message?.action === 'upload_progress' && <progress max={100} value={message.payload.progress_percent} />}
      {message?.action === 'upload_completed' && <p id="result">{message.description}</p>}
      <ol>{lines.map((line, i) => <li key={i}>{line}</li>)}</ol>
      {connection.state === 'stopped' && <button onClick={connection.reconnect}>Try again</button>}
    </main>
  )
}

import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { ShoalProvider } from '@shoal/client/react'
import { tabs } from '@shoal/client/tabs'
import { Upload } from './Upload'

const parameters = new URLSearchParams(location.search)

async function token(): Promise<string> {
  const answer = await fetch('/token')
  if (!answer.ok) throw new Error(`no token: ${answer.status}`)
  return answer.text()
}

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <ShoalProvider url={parameters.get('server') ?? '/ws/uploads'} token={token} share={tabs('ann')}>
      <Upload id={parameters.get('id') ?? 'demo'} />
    </ShoalProvider>
  </StrictMode>,
)

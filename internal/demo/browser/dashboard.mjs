// What the tests of the dashboard share.

import assert from 'node:assert/strict'
import { Tab } from './harness.mjs'

export const note = (text) => ({ action: 'note', text })

// address returns the part of the address that names a page.
export const address = (kind, id) => `#/${kind}/${encodeURIComponent(id)}`

// openDashboard opens a page of the dashboard, and notes requests to other servers. Before that, prepare gets the page.
export async function openDashboard(context, server, hash = '', prepare = () => {}) {
  const tab = new Tab()
  tab.page = await context.newPage()
  tab.page.on('pageerror', (error) => tab.complaints.push(String(error)))
  tab.page.on('console', (line) => {
    if (['error', 'warning'].includes(line.type())) tab.complaints.push(line.text())
  })
  tab.page.on('request', (request) => {
    if (new URL(request.url()).host !== new URL(server.admin).host) tab.complaints.push(`a request to ${request.url()}`)
  })
  await prepare(tab.page)
  await tab.page.goto(`${server.admin}/dashboard/${hash}`)
  await tab.connection('live')
  return tab
}

// openStream opens an event stream of a user. It returns its text, a promise of its end, and a function that ends it.
export async function openStream(server, user, id) {
  const { token } = await (await fetch(`${server.url}/dev/token?user=${encodeURIComponent(user)}`)).json()
  const stop = new AbortController()
  const answer = await fetch(`${server.url}/events/uploads/${encodeURIComponent(id)}`, {
    headers: { Authorization: `Bearer ${token}` }, signal: stop.signal,
  })
  assert.equal(answer.status, 200)
  const stream = { text: '', abort: () => stop.abort() }
  stream.ended = (async () => {
    try {
      for await (const piece of answer.body) stream.text += Buffer.from(piece)
    } catch {
      // aborted by the test
    }
  })()
  return stream
}

// enterKey types an API key into a page.
export async function enterKey({ page }, key = 'dev') {
  await page.getByRole('button', { name: 'Read-only: enter key' }).click()
  await page.getByLabel('Key', { exact: true }).fill(key)
  await page.getByRole('button', { name: 'Use key' }).click()
}

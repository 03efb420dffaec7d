// Server-Sent Events in a real browser: its own EventSource, against the real server.

import assert from 'node:assert/strict'
import { beforeEach, test } from 'node:test'
import { context, server, useBrowser } from './harness.mjs'

useBrowser()

let page

beforeEach(async () => {
  page = await context.newPage()
})

async function tokenOf(user) {
  return (await (await fetch(`${server.url}/dev/token?user=${user}`)).json()).token
}

// follow opens an EventSource in the page, which notes its messages in window.got and its close events in window.ends.
function follow(address) {
  return page.evaluate((url) => {
    window.got = []
    window.ends = []
    window.source = new EventSource(url)
    source.onmessage = (e) => got.push({ ...JSON.parse(e.data), id: e.lastEventId })
    source.addEventListener('close', (e) => ends.push(JSON.parse(e.data)))
  }, address)
}

// until waits for a message with the fields, and returns all messages so far.
async function until(fields) {
  await page.waitForFunction((want) => got.some((m) => Object.keys(want).every((k) => m[k] === want[k])), fields)
  return page.evaluate(() => got)
}

const note = (n) => ({ action: 'note', n })

test('an EventSource follows uploads and recovers what it missed, from a page of another origin too', async () => {
  // A development server allows pages of any local origin; localhost is another one than 127.0.0.1. Unlike the demo
  // page, this address allows connections to other origins.
  await page.goto(`${server.url.replace('127.0.0.1', 'localhost')}/dev/token?user=ann`)
  await follow(`${server.url}/events/uploads?id=a&id=b&access_token=${await tokenOf('ann')}`)
  await until({ action: 'subscribed', upload_id: 'a' })
  await until({ action: 'subscribed', upload_id: 'b' })
  await server.publish('a', note(1))
  await until({ n: 1 })

  // The stream ends, and messages are published before the browser is back.
  const answer = await fetch(`${server.url}/v1/users/ann/connections?code=1012`, {
    method: 'DELETE', headers: { Authorization: 'Bearer dev' },
  })
  assert.equal(answer.status, 202)
  await server.publish('b', note(2))
  await server.publish('a', note(3))
  await server.publish('b', note(4))
  await until({ n: 3 })
  const got = await until({ n: 4 })
  assert.deepEqual(got.filter((m) => m.action === 'note').map((m) => m.n).sort(), [1, 2, 3, 4], 'each message once')
  const acknowledged = got.filter((m) => m.action === 'subscribed').map((m) => [m.upload_id, m.recovered])
  assert.deepEqual(acknowledged, [['a', false], ['b', false], ['a', true], ['b', true]])
  assert.deepEqual(await page.evaluate(() => ends.map((c) => c.code)), [1012])
})

test('an EventSource survives the death of the server', async () => {
  await page.goto(server.url)
  await follow(`/events/uploads/film?access_token=${await tokenOf('bob')}`)
  await until({ action: 'subscribed', upload_id: 'film' })
  await server.publish('film', note(1))
  await until({ n: 1 })
  await server.kill()
  await server.begin()
  await page.waitForFunction(() => got.filter((m) => m.action === 'subscribed').length === 2)
  await server.publish('film', note(2))
  const got = await until({ n: 2 })
  assert.equal(got.at(-2).recovered, false, 'the history was lost with the server')
})

test('an EventSource stops when it is refused', async () => {
  await page.goto(server.url)
  await follow('/events/uploads/film?access_token=nonsense')
  await page.waitForFunction(() => source.readyState === EventSource.CLOSED)
  assert.deepEqual(await page.evaluate(() => got), [])
})

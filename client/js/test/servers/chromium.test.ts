// The client in Chromium, against real servers.

import { type Server as HttpServer, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { buildSync } from 'esbuild'
import { type Browser, type BrowserContext, type Page, chromium } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { FLAGS, Proxy, Server, line, progress, token } from './harness.js'

let browser: Browser
let context: BrowserContext
let pages: HttpServer
let address: string
let server: Server
let proxy: Proxy

declare global {
  function follow(url: string, ids: string[], options?: object): void
  function render(url: string, ids: string[] | null): void
  var seen: unknown[]
  var states: string[]
  var shoal: any
}

beforeAll(async () => {
  const script = buildSync({
    entryPoints: [fileURLToPath(new URL('page.tsx', import.meta.url))], bundle: true, format: 'esm', write: false, jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"development"' },
  }).outputFiles[0]!.contents
  pages = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url!, address)
    if (pathname === '/app.js') return response.writeHead(200, { 'Content-Type': 'text/javascript' }).end(script)
    if (pathname === '/token') return response.end(token('ann', Number(searchParams.get('seconds'))))
    response.writeHead(200, { 'Content-Type': 'text/html' })
    response.end('<!doctype html><title>Test</title><link rel="icon" href="data:,"><div id="root"></div><script type="module" src="/app.js"></script>')
  })
  await new Promise<void>((resolve) => pages.listen(0, '127.0.0.1', resolve))
  address = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`
  server = await Server.start('--allowed-origin', address, '--ping-interval', '1s')
  proxy = await Proxy.before(server)
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS,
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
  })
})

afterAll(async () => {
  await browser?.close()
  pages?.closeAllConnections()
  pages?.close()
  await proxy?.close()
  await server?.end()
})

beforeEach(async () => {
  context = await browser.newContext()
  context.setDefaultTimeout(20_000)
})

afterEach(async () => {
  server.thaw()
  proxy.mend()
  proxy.blocking = false
  await context.close()
})

async function open(): Promise<Page> {
  const page = await context.newPage()
  await page.goto(address)
  await page.waitForFunction(() => typeof follow === 'function')
  return page
}

async function following(id: string, options: object = {}, url = server.url): Promise<Page> {
  const page = await open()
  await page.evaluate(([u, i, o]) => follow(u, [i], o), [url, id, options] as const)
  await live(page, id)
  return page
}

const live = (page: Page, id: string) => page.waitForFunction((i) => shoal.status(i).state === 'live', id)
// state waits until the connection was in a state, or had an error of a code, however short.
const state = (page: Page, want: string) => page.waitForFunction((w) => states.includes(w), want)

async function sees(page: Page, want: unknown[]): Promise<void> {
  await page.waitForFunction((n) => seen.length >= n, want.length)
  expect(await page.evaluate(() => seen)).toEqual(want)
}

// count waits until the server has so many connections.
async function count(connections: number): Promise<void> {
  await expect.poll(async () => (await server.api('/v1/stats')).connections, { timeout: 10_000 }).toBe(connections)
}

test('a server that is killed, and one that drains, is found again', async () => {
  const page = await following('killed')
  await server.publish('killed', line(1))
  await sees(page, [1])
  await server.end('SIGKILL')
  await state(page, 'waiting')
  await server.begin()
  await server.publish('killed', line(2))
  await sees(page, [1, 'history', 2])
  const ended = server.end('SIGTERM')
  await state(page, 'restart')
  await ended
  await server.begin()
  await live(page, 'killed')
})

test('a server that freezes is given up, and loses nothing', async () => {
  const page = await following('frozen', { silence: 1200, sse: false })
  server.freeze()
  await state(page, 'waiting')
  server.thaw()
  await server.publish('frozen', line(1))
  await sees(page, [1])
})

test('a network that comes back is used at once, and nothing is lost', async () => {
  const page = await following('offline', {}, proxy.url)
  proxy.cut()
  await context.setOffline(true)
  await state(page, 'waiting')
  for (let i = 1; i <= 5; i++) await server.publish('offline', line(i))
  proxy.mend()
  await context.setOffline(false)
  await sees(page, [1, 2, 3, 4, 5])
})

test('a page in the back/forward cache lets go of its connection, and goes on where it was', async () => {
  const page = await following('cached')
  await server.publish('cached', line(1))
  await sees(page, [1])
  await page.evaluate(() => addEventListener('pageshow', (event) => { document.title = `persisted ${event.persisted}` }))
  await page.goto(`${address}/other`)
  await count(0)
  await server.publish('cached', line(2))
  await page.evaluate(() => void setTimeout(() => history.back()))
  await page.waitForFunction(() => document.title === 'persisted true')
  await sees(page, [1, 2])
  expect(await page.evaluate(() => states.filter((s) => s === 'live').length)).toBe(2)
})

test('a token that expires is replaced, and nothing is lost', async () => {
  const page = await following('expired', { seconds: 2, hideExpiry: true })
  await state(page, 'expired')
  await server.publish('expired', line(1))
  await sees(page, [1])
})

test('streams are used where WebSockets are blocked, from another origin too', async () => {
  proxy.blocking = true
  const page = await following('stream', {}, proxy.url)
  expect(await page.evaluate(() => shoal.status().transport)).toBe('sse')
  await server.publish('stream', line(1))
  await sees(page, [1])
  proxy.cut()
  await state(page, 'waiting')
  await server.publish('stream', line(2))
  proxy.mend()
  await sees(page, [1, 2])
  await page.evaluate(() => shoal.close())
  await count(0)
})

test('tabs share a connection, through the end of the one that has it', async () => {
  const first = await following('shared', { share: 'ann' })
  const second = await following('shared', { share: 'ann' })
  await count(1)
  await server.publish('shared', progress('shared', 10), line(1))
  await sees(first, [10, 1])
  await sees(second, [10, 1])
  const third = await following('shared', { share: 'ann' })
  await sees(third, [1]) // the newest at once
  expect(await third.evaluate(() => shoal.status().user)).toBe('ann')

  await first.close()
  await server.publish('shared', line(2))
  await sees(second, [10, 1, 2])
  await sees(third, [1, 2])
  await count(1)
  await third.evaluate(() => shoal.close())
  await server.publish('shared', line(3))
  await sees(second, [10, 1, 2, 3])
  await second.evaluate(() => shoal.close())
  await count(0)
})

test('tabs that share a connection each follow uploads of their own', async () => {
  await following('own-0', { share: 'ann' })
  for (let n = 1; n <= 10; n++) {
    const page = await following(`own-${n}`, { share: 'ann' })
    await server.publish(`own-${n}`, line(n))
    await sees(page, [n])
    if (n % 2) await page.close()
  }
  await count(1)
})

test.each(['leads', 'follows'])('a tab that %s goes into the back/forward cache, and goes on where it was', async (role) => {
  const id = `cached-${role}`
  const other = role === 'follows' && await following('other', { share: 'ann' })
  const page = await following(id, { share: 'ann' })
  if (!other) await following('other', { share: 'ann' })
  await server.publish(id, line(1))
  await sees(page, [1])
  await page.evaluate(() => addEventListener('pageshow', (event) => { document.title = `persisted ${event.persisted}` }))
  await page.goto(`${address}/other`)
  await expect.poll(async () => (await server.api(`/v1/uploads/${id}/subscribers`)).count).toBe(0)
  await server.publish(id, line(2))
  await page.evaluate(() => void setTimeout(() => history.back()))
  await page.waitForFunction(() => document.title === 'persisted true')
  await sees(page, [1, 2])
  await count(1)
})

test('a tab that no longer answers loses the connection to another one, and gives way when it goes on', async () => {
  const first = await open()
  await first.evaluate((url) => follow(url, ['stolen', 'alone'], { share: 'ann' }), server.url)
  await live(first, 'alone')
  const second = await following('stolen', { share: 'ann' })
  const session = await context.newCDPSession(first)
  await session.send('Debugger.enable')
  const paused = new Promise((resolve) => session.once('Debugger.paused', resolve))
  await session.send('Debugger.pause')
  await server.publish('stolen', line(0)) // which wakes the tab that leads, into the debugger
  await paused
  const third = await following('stolen', { share: 'ann' })
  await live(second, 'stolen')
  await server.publish('stolen', line(1))
  await second.waitForFunction(() => seen.includes(1))
  await third.waitForFunction(() => seen.includes(1))
  await session.send('Debugger.resume')
  await session.send('Debugger.disable')
  await first.waitForFunction(() => seen.includes(1))
  await count(1)
  await server.publish('stolen', line(2))
  for (const page of [first, second, third]) await page.waitForFunction(() => seen.at(-1) === 2)
  expect(await second.evaluate(() => seen)).toEqual([0, 1, 2])
  await server.publish('alone', line(3)) // which the tab that has lost its place follows alone
  await first.waitForFunction(() => seen.at(-1) === 3)
})

test('a tab that goes on after it has lost the connection and its place disturbs no other one', async () => {
  const open = async () => {
    const page = await following('disturbed', { share: 'ann' }, proxy.url)
    await page.evaluate(() => void shoal.follow('wake', () => {}))
    await live(page, 'wake')
    return page
  }
  const first = await open()
  const second = await open()
  const third = await open()
  await server.publish('disturbed', line(1))
  for (const page of [first, second, third]) await sees(page, [1])
  const session = await context.newCDPSession(first)
  await session.send('Debugger.enable')
  const paused = new Promise((resolve) => session.once('Debugger.paused', resolve))
  await session.send('Debugger.pause')
  await server.publish('wake', line(0))
  await paused
  const lives = (page: Page, n: number) => page.waitForFunction((want) => states.filter((s) => s === 'live').length >= want, n)
  await second.evaluate(() => dispatchEvent(new Event('online'))) // which asks for an answer
  await lives(second, 2)
  await lives(third, 2)
  proxy.cut() // both connections
  await state(third, 'waiting')
  proxy.mend()
  await lives(third, 3)
  await session.send('Debugger.resume')
  await session.send('Debugger.disable')
  await lives(first, 2)
  for (const page of [first, second, third]) await live(page, 'disturbed')
  await server.publish('disturbed', line(2))
  for (const page of [first, second, third]) await sees(page, [1, 2])
  const late = await following('disturbed', { share: 'ann' }, proxy.url)
  await sees(late, [2])
})

test('another name is another connection', async () => {
  await following('apart', { share: 'ann' })
  await following('apart', { share: 'bob' })
  await count(2)
})

test('React in StrictMode follows while a component is mounted, and leaves nothing behind', async () => {
  const page = await open()
  const complaints: string[] = []
  page.on('console', (entry) => ['error', 'warning'].includes(entry.type()) && complaints.push(entry.text()))
  page.on('pageerror', (error) => complaints.push(String(error)))
  const show = (ids: string[] | null) => page.evaluate(([url, i]) => render(url, i), [server.url, ids] as const)
  const text = (id: string, want: string) => page.waitForFunction(([i, w]) => document.getElementById(i!)?.textContent === w, [id, want])
  const followers = (id: string, n: number) =>
    expect.poll(async () => (await server.api(`/v1/uploads/${id}/subscribers`)).count).toBe(n)
  await server.publish('one', progress('one', 10))
  await show(['one', 'two', 'one'])
  await text('connection', 'live')
  await text('bar-one', 'live 10')
  await text('bar-two', 'live -')
  await count(1)
  await server.publish('two', progress('two', 20))
  await text('bar-two', 'live 20')
  await show(['one'])
  await followers('two', 0)
  await followers('one', 1)
  await show(['two']) // the same component, another upload
  await text('bar-two', 'live 20')
  await followers('one', 0)
  await show(null)
  await count(0)
  await show(['one'])
  await text('bar-one', 'live 10')
  await page.evaluate((url) => { render(url, ['two']); render(url, null) }, server.url)
  await count(0)
  expect(complaints.filter((entry) => !entry.includes('React DevTools') && !entry.includes('WebSocket is closed before'))).toEqual([])
})

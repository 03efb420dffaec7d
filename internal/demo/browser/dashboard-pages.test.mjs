// The pages of the dashboard with what is hard to show: other epochs, large numbers, many nodes and uploads, odd ids.

import assert from 'node:assert/strict'
import { createServer, request } from 'node:http'
import { connect } from 'node:net'
import { test } from 'node:test'
import { address, enterKey, note, openDashboard, openStream } from './dashboard.mjs'
import { browser, context, server, useBrowser } from './harness.mjs'

useBrowser({ viewport: { width: 1200, height: 1000 } }, 30_000)

const open = (hash, prepare) => openDashboard(context, server, hash, prepare)

// api calls the HTTP API and returns the text of the answer.
async function api(method, path, body, type = 'application/json') {
  const answer = await fetch(`${server.url}/v1/${path}`, {
    method, body, headers: { Authorization: 'Bearer dev', ...(body && { 'Content-Type': type }) },
  })
  const text = await answer.text()
  assert.ok(answer.ok, text)
  return text
}

test('the history of a new epoch takes the place of the former one, with the same offsets', async () => {
  let go = () => {}
  let gate = Promise.resolve()
  await server.publish('again', note('of the first epoch'))
  const { page, complaints } = await open(address('upload', 'again'), (page) => page.route('**/data/upload*', async (route) => {
    await gate
    await route.continue()
  }))
  await page.locator('.history').getByText('of the first epoch').waitFor()
  gate = new Promise((resolve) => { go = resolve }) // the page must not look in between
  await api('DELETE', 'uploads/again')
  await server.publish('again', note('of the second epoch'))
  go()
  await page.locator('.history').getByText('of the second epoch').waitFor()
  assert.equal(await page.locator('.history li').count(), 1)
  assert.deepEqual(complaints, [])
})

test('a message by hand is sent as it was typed', async () => {
  const tab = await open(address('upload', 'by hand'))
  const { page } = tab
  await enterKey(tab)
  await page.getByRole('button', { name: 'API key in use' }).waitFor()
  const message = String.raw`{"action":"own", "n":12345678901234567890,"f":1.0,"e":1E+400,"t":"\u00e9é <b>\u202e","offsets":[9007199254740993]}`
  await page.getByLabel('Message (JSON)').fill(message)
  await page.getByRole('button', { name: 'Publish' }).click()
  await page.getByText('Published.', { exact: true }).waitFor()
  const stored = await api('GET', 'uploads/by%20hand')
  for (const part of ['12345678901234567890', '1.0', '1E+400', String.raw`\u00e9é`, '9007199254740993']) {
    assert.ok(stored.includes(part), `${part} is not in ${stored}`)
    await page.locator('.history').getByText(part).waitFor()
  }
  await page.getByLabel('Begin with').selectOption('failed')
  assert.equal(JSON.parse(await page.getByLabel('Message (JSON)').inputValue()).upload_id, 'by hand')
  assert.deepEqual(tab.complaints, [])
})

test('ids that are odd are shown as they are, or refused with a reason', async () => {
  const id = '\u202etxt.exe\u2066 <i>&amp;</i> \u2028%'
  await server.publish(id, note('odd'))
  const { page, complaints } = await open(address('upload', id))
  await page.locator('.history').getByText('odd').waitFor()
  assert.equal(await page.locator('h1 .id').textContent(), id)
  assert.equal(await page.locator('h1 .id').evaluate((e) => getComputedStyle(e).unicodeBidi), 'isolate')
  assert.equal(await page.locator('main i').count(), 0)
  complaints.length = 0
  const go = (hash) => page.evaluate((to) => { location.hash = to }, hash)
  await go('#/upload/%00')
  await page.getByText('Id must not contain control characters.').waitFor()
  await go('#/user/%EF%BF%BD')
  await page.getByText(/^Id must not contain U\+FFFD/).waitFor()
  for (const hash of ['#/upload/%ff', '#/user/', '#/nothing/x', '#/upload/%']) {
    await go(hash)
    await page.getByRole('region', { name: 'Messages in' }).waitFor()
  }
  assert.deepEqual(complaints.filter((line) => !/422/.test(line)), []) // the browser notes refusals
})

// A browser resolves these in an address, however they are written.
test('an upload and a user whose id is a dot, or two, are published to and disconnected', async () => {
  const tab = await open()
  const { page } = tab
  await enterKey(tab)
  await page.getByRole('button', { name: 'API key in use' }).waitFor()
  for (const id of ['.', '..']) {
    const stream = await openStream(server, id, 'followed by dots')
    await page.evaluate((to) => { location.hash = to }, address('upload', id))
    await page.getByLabel('Message (JSON)').fill(JSON.stringify(note(`to ${id}`)))
    await page.getByRole('button', { name: 'Publish' }).click()
    await page.locator('.history').getByText(`to ${id}"`).waitFor()
    await page.evaluate((to) => { location.hash = to }, address('user', id))
    await page.getByText('1 connection to this node').waitFor()
    await page.getByRole('button', { name: 'Disconnect' }).click()
    await page.getByRole('button', { name: 'Close all connections' }).click()
    await page.getByText('Closed 1 connection on this node.').waitFor()
    await stream.ended
  }
  assert.deepEqual(tab.complaints, [])
})

test('a message is published once, however often the button is pressed, and a failure is final', async () => {
  let go = () => {}
  let answer = new Promise((resolve) => { go = resolve })
  let sent = 0
  const tab = await open(address('upload', 'slow'), (page) => page.route('**/data/upload*', async (route) => {
    if (route.request().method() !== 'POST') return route.continue()
    sent++
    return (await answer) ? route.continue() : route.abort()
  }))
  const { page } = tab
  await enterKey(tab)
  await page.getByRole('button', { name: 'API key in use' }).waitFor()
  const button = page.getByRole('button', { name: 'Publish' })
  await button.click()
  await button.click()
  await page.getByText('Publishing…').waitFor()
  go(true)
  await page.getByText('Published.', { exact: true }).waitFor()
  assert.equal(sent, 1)
  answer = Promise.resolve(false)
  await button.click()
  await page.getByText('The server cannot be reached.', { exact: true }).waitFor()
  assert.equal(sent, 2)
})

// loginProxy passes requests with the cookie login=ok, or with a login of the scheme Basic, on to a server. It answers
// others with a login page, or asks for such a login.
async function loginProxy(target, basic = false) {
  const { hostname, port } = new URL(target)
  const proxy = createServer((from, to) => {
    if (basic && !from.headers.authorization) {
      to.writeHead(401, { 'WWW-Authenticate': 'Basic realm="proxy"' }).end()
      return
    }
    if (!basic && !from.headers.cookie?.includes('login=ok')) {
      to.writeHead(200, { 'Content-Type': 'text/html' }).end('<h1>Log in</h1>')
      return
    }
    const passed = request({ hostname, port, path: from.url, method: from.method, headers: from.headers }, (answer) => {
      to.writeHead(answer.statusCode, answer.headers)
      answer.pipe(to)
    })
    from.pipe(passed)
  })
  proxy.on('upgrade', (from, socket) => {
    const passed = connect(port, hostname, () => {
      const lines = from.rawHeaders.map((text, i) => `${text}${i % 2 ? '\r\n' : ': '}`)
      passed.write(`GET ${from.url} HTTP/1.1\r\n${lines.join('')}\r\n`)
      passed.pipe(socket).pipe(passed)
    })
    for (const end of [socket, passed]) end.on('error', () => { socket.destroy(); passed.destroy() })
  })
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  return { admin: `http://127.0.0.1:${proxy.address().port}`, close: () => { proxy.close(); proxy.closeAllConnections() } }
}

test('a proxy that wants a login lets the page through with it, and is noticed when the login has ended', async () => {
  const proxy = await loginProxy(server.admin)
  try {
    await context.addCookies([{ name: 'login', value: 'ok', url: proxy.admin }])
    const tab = await openDashboard(context, proxy, address('upload', 'behind'))
    const { page } = tab
    await enterKey(tab)
    await page.getByRole('button', { name: 'API key in use' }).waitFor()
    await page.getByText(/^0 followers/).waitFor()
    await context.clearCookies()
    await page.getByRole('button', { name: 'Publish' }).click()
    await page.locator('.outcome').getByText(/^The answer is not from Shoal; a proxy may want a login/).waitFor()
    await page.locator('.detail > .problem').getByText(/^The answer is not from Shoal/).waitFor()
    await assert.rejects(api('GET', 'uploads/behind'), /not found|404/i)
  } finally {
    proxy.close()
  }
})

test('a proxy that wants a login of the scheme Basic, and passes it on, lets the page through', async () => {
  const proxy = await loginProxy(server.admin, true)
  const user = await browser.newContext({ httpCredentials: { username: 'ann', password: 'secret' } })
  user.setDefaultTimeout(30_000)
  try {
    const { page } = await openDashboard(user, proxy, address('upload', 'behind'))
    await page.getByText(/^0 followers/).waitFor()
    assert.equal(await page.locator('.detail > .problem').textContent(), '')
  } finally {
    await user.close()
    proxy.close()
  }
})

// A server that was started again without keys, or a proxy, answers so. Its reason may be anything.
test('a key that is forbidden is forgotten, and the numbers go on', async () => {
  const tab = await open('', async (page) => {
    await page.addInitScript(() => sessionStorage.setItem('shoal-key', 'former'))
    await page.route('**/dashboard/token*', (route) => (route.request().headers().authorization
      ? route.fulfill({ status: 403, contentType: 'application/problem+json', body: '{"detail":[]}' }) : route.continue()))
  })
  const { page } = tab
  await page.getByText(/published here/).waitFor()
  assert.equal(await page.evaluate(() => sessionStorage.length), 0)
  await enterKey(tab)
  await page.getByText('The server answers with status 403.').waitFor()
  assert.deepEqual(tab.complaints.filter((line) => !/403/.test(line)), []) // the browser notes refusals
})

test('a key that is forgotten while a token is renewed with it stays forgotten', async () => {
  let asked, go
  const renewal = new Promise((resolve) => { asked = resolve })
  const released = new Promise((resolve) => { go = resolve })
  let tokens = 0 // with the key: the key is tried, the stream connects, and renews its token soon
  const { page } = await open('', (page) => page.route('**/dashboard/token*', async (route) => {
    if (!route.request().headers().authorization) return route.continue()
    const response = await route.fetch()
    if (++tokens === 3) {
      asked(route.request())
      await released
    }
    const soon = new Date(Date.now() + 2000).toISOString()
    await route.fulfill({ response, json: { ...await response.json(), expires_at: soon } })
  }))
  await enterKey({ page })
  const request = await renewal
  await page.getByRole('button', { name: 'API key in use' }).click()
  await page.getByRole('button', { name: 'Forget key' }).click()
  await page.getByRole('button', { name: 'Read-only: enter key' }).waitFor()
  go()
  await request.response()
  await page.evaluate(async () => (await fetch('token')).json()) // the page has read the answer before that
  assert.equal(await page.evaluate(() => sessionStorage.length), 0)
  await page.getByRole('button', { name: 'Read-only: enter key' }).waitFor()
})

// numbered passes the messages of the stream on, with other numbers.
const numbered = (change) => (page) => page.routeWebSocket('**/ws/uploads', (socket) => {
  socket.connectToServer().onMessage((text) => {
    const message = JSON.parse(text)
    if (message.action === 'dashboard.numbers') change(message)
    socket.send(JSON.stringify(message))
  })
})

test('nodes are listed with those that do not answer, and their names are text', async () => {
  const node = (name, healthy = true) => ({ name, connections: 1234, users: 7, uploads: 3, published: 2_500_000, healthy })
  let nodes = [node('a<b>b</b>'), node('b', false), node('c')]
  const { page, complaints } = await open('', numbered((n) => {
    n.nodes = nodes
    n.missing_nodes = ['gone <img src=x>']
    n.more_nodes = 1000
  }))
  const rows = page.getByRole('region', { name: 'Nodes' }).locator('tbody tr')
  const cells = (n) => rows.nth(n).locator('td').allTextContents()
  await page.getByText('gone <img src=x>').waitFor()
  assert.deepEqual(await cells(0), ['a<b>b</b>', 'healthy', '1,234', '7', '3', '2.5M'])
  assert.equal((await cells(1))[1], 'broker unhealthy')
  assert.deepEqual(await cells(3), ['gone <img src=x>', 'does not answer', '–', '–', '–', '–'])
  assert.equal((await cells(4))[0], 'and 1,000 more')
  nodes = [node('c')]
  await page.waitForFunction(() => document.querySelectorAll('[aria-label=Nodes] tbody tr').length === 3)
  assert.equal((await cells(0))[0], 'c')
  assert.equal(await page.locator('main img, main td b').count(), 0)
  assert.deepEqual(complaints, [])
})

test('ten thousand uploads do not slow the pages down', async () => {
  const lines = Array.from({ length: 10_000 }, (_, i) => JSON.stringify({ upload_id: `many-${i}`, message: note('x') }))
  await api('POST', 'messages', lines.join('\n'), 'application/x-ndjson')
  const tab = await open(address('user', 'follower'), (page) => page.route('**/data/user*', (route) => route.fulfill({ json: {
    id: 'follower', connections: [], connection_count: 0, upload_count: 10_000,
    uploads: Array.from({ length: 200 }, (_, i) => `many-${i}`),
  } })))
  const { page } = tab
  await page.getByText('0 connections to this node · 10,000 followed uploads').waitFor()
  await page.getByText('and 9,800 more').waitFor()
  assert.equal(await page.locator('.ids li').count(), 200)
  await page.getByRole('link', { name: '← Overview' }).click()
  await page.getByRole('region', { name: 'Memory and histories' }).getByText(/ of 10,0\d\d uploads$/).waitFor()
  assert.deepEqual(tab.complaints, [])
})

test('a page of an upload goes on after the server was started again, at once by hand', async () => {
  await server.publish('restarted', note('before'))
  const { page } = await open(address('upload', 'restarted'))
  await page.locator('.history').getByText('before').waitFor()
  await server.kill()
  await page.getByText('The server cannot be reached. Trying again.').waitFor()
  await page.locator('#connection[data-state=waiting]').waitFor()
  await server.begin()
  await server.publish('restarted', note('after'))
  await page.evaluate(() => { document.getElementById('reconnect').click() })
  await page.locator('#connection[data-state=live]').waitFor()
  await page.locator('.history').getByText('after').waitFor()
  assert.equal(await page.locator('.history li').count(), 1)
  await page.getByText('The server cannot be reached. Trying again.').waitFor({ state: 'detached' })
})

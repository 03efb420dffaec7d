// The dashboard of the admin listener in a real browser, against the real server.

import assert from 'node:assert/strict'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import { address, enterKey, note, openDashboard, openStream } from './dashboard.mjs'
import { browser, context, server, Server, useBrowser } from './harness.mjs'

useBrowser({ viewport: { width: 1200, height: 1000 } })

let streams = []

afterEach(() => {
  for (const stream of streams) stream.abort()
  streams = []
})

// open opens a page of the dashboard, and notes requests to other servers.
const open = (hash = '', { on = server, within = context } = {}) => openDashboard(within, on, hash)

// follow opens an event stream of a user, and returns its texts and its end.
async function follow(user, id, on = server) {
  const stream = await openStream(on, user, id)
  streams.push(stream)
  return stream
}

test('the numbers are live, and the page needs no other server', async () => {
  const tab = await open()
  const tile = tab.page.getByRole('region', { name: 'Messages in' })
  await tile.getByText(/published here/).waitFor()
  const number = async () => Number((await tile.locator('.note').textContent()).split(' ')[0])
  const before = await number()
  for (let i = 0; i < 3; i++) await server.publish('live', note(`${i}`))
  await tab.page.waitForFunction((than) => {
    const text = document.querySelector('.tile[aria-label="Messages in"] .note').textContent
    return Number(text.split(' ')[0]) === than
  }, before + 3)
  assert.match(await tab.page.locator('.tile[aria-label="Connections"] .spark-line').getAttribute('d'), /^M/)
  await tab.page.getByText('this node is alone').waitFor()
  assert.equal(await tab.page.title(), 'Shoal dashboard')
  assert.deepEqual(tab.complaints, [])
})

test('an upload shows its follower and history, and takes a message published by hand with the key', async () => {
  const id = `a/b?c#d "%25"`
  const stream = await follow('ann', id)
  await server.publish(id, note('from curl'))
  const tab = await open(address('upload', id))
  const { page } = tab
  await page.getByRole('heading', { name: `Upload ${id}` }).waitFor()
  await page.getByRole('link', { name: 'ann', exact: true }).waitFor()
  await page.locator('.history').getByText('from curl').waitFor()

  const publish = page.getByRole('button', { name: 'Publish' })
  assert.ok(await publish.isDisabled(), 'the page is read-only')
  const status = await page.evaluate(async () => (await fetch('data/upload?id=x', {
    method: 'POST', body: '{"action":"note"}', headers: { 'Content-Type': 'application/json' },
  })).status)
  assert.equal(status, 401)
  tab.complaints = [] // the browser notes the 401

  await enterKey(tab, 'wrong')
  await page.getByText('The API key is not one of those configured.').waitFor()
  assert.equal(await page.evaluate(() => sessionStorage.length), 0, 'a wrong key is not kept')
  await page.getByLabel('Key', { exact: true }).fill('dev')
  await page.keyboard.press('Enter')
  await page.getByRole('button', { name: 'API key in use' }).waitFor()
  tab.complaints = []
  await publish.click()
  await page.getByText('Published.', { exact: true }).waitFor()
  await page.locator('.history').getByText(/Published by hand/).waitFor()
  await page.locator('#publish-message').fill('{"action":')
  await publish.click()
  await page.getByText(/^Not JSON/).waitFor()
  for (const wait = AbortSignal.timeout(60_000); !stream.text.includes('Published by hand');) {
    wait.throwIfAborted()
    await new Promise(setImmediate)
  }

  await page.reload() // the key is kept in this tab, and in no other
  await page.getByRole('button', { name: 'API key in use' }).waitFor()
  const other = await open(address('upload', id))
  await other.page.getByRole('button', { name: 'Read-only: enter key' }).waitFor()
  await page.getByRole('button', { name: 'API key in use' }).click()
  await page.getByRole('button', { name: 'Forget key' }).click()
  await page.getByRole('button', { name: 'Read-only: enter key' }).waitFor()
  assert.equal(await page.evaluate(() => sessionStorage.length), 0)
  assert.deepEqual([...tab.complaints, ...other.complaints], [])
})

test('a user is shown with the connections and disconnected', async () => {
  const stream = await follow('bob', 'of-bob')
  const tab = await open(address('user', 'bob'))
  const { page } = tab
  await page.getByText('1 connection to this node · 1 followed upload').waitFor()
  await page.getByRole('link', { name: 'of-bob' }).waitFor()
  assert.ok(await page.getByRole('button', { name: 'Disconnect' }).isDisabled())
  await enterKey(tab)
  await page.getByRole('button', { name: 'Disconnect' }).click()
  await page.getByRole('button', { name: 'Cancel' }).click()
  await page.getByRole('button', { name: 'Disconnect' }).click()
  await page.getByRole('button', { name: 'Close all connections' }).click()
  await page.getByText('Closed 1 connection on this node.').waitFor()
  await stream.ended
  await page.getByText('No connection to this node.').waitFor()
  await page.getByRole('link', { name: '← Overview' }).click()
  await page.getByRole('region', { name: 'Closings' }).getByText('Normal closure').waitFor()
  assert.deepEqual(tab.complaints, [])
})

test('hostile ids are text', async () => {
  const hostile = `<img src=x onerror="document.title='hacked'"><b>bold</b>`
  await follow(hostile, hostile)
  await server.publish(hostile, note(hostile))
  const tab = await open(address('upload', hostile))
  await tab.page.getByRole('link', { name: hostile }).waitFor()
  await tab.page.locator('.history').getByText('<b>bold</b>').waitFor()
  await tab.page.getByRole('link', { name: hostile }).click()
  await tab.page.getByRole('heading', { name: `User ${hostile}` }).waitFor()
  await tab.page.getByText('1 followed upload').waitFor()
  assert.equal(await tab.page.locator('main img, main b').count(), 0)
  assert.doesNotMatch(await tab.page.title(), /^hacked/)
  assert.deepEqual(tab.complaints, [])
})

// contrasts returns the texts whose contrast with their background is below 4.5.
function contrasts() {
  const parse = (color) => color.match(/[\d.]+/g).map(Number)
  const light = (color) => {
    const [r, g, b] = parse(color).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor
      if ((parse(color)[3] ?? 1) > 0) return color
    }
    return 'rgb(255, 255, 255)'
  }
  const poor = []
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim())
    if (!own || !element.checkVisibility()) continue
    let seen = 1 // how much of the color is left
    for (let e = element; e; e = e.parentElement) {
      seen *= getComputedStyle(e).opacity * (/opacity\(([\d.]+)\)/.exec(getComputedStyle(e).filter)?.[1] ?? 1)
    }
    const [color, below] = [parse(getComputedStyle(element).color), parse(ground(element))]
    const [a, b] = [light(`${color.map((c, i) => c * seen + below[i] * (1 - seen))}`), light(`${below}`)]
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    if (contrast < 4.5) poor.push(`${element.tagName}.${element.className} ${element.textContent}: ${contrast.toFixed(1)}`)
  }
  return poor
}

test('the pages fit a phone, have contrast in both schemes, and keep still where that is wished', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'dashboard-'))
  const id = `an-id-that-is-much-too-long-for-a-phone-${'x'.repeat(80)}`
  await follow(id, id)
  await server.publish(id, note('y'.repeat(300)))
  try {
    for (const colorScheme of ['light', 'dark']) {
      const phone = await browser.newContext({ viewport: { width: 360, height: 740 }, colorScheme, reducedMotion: 'reduce' })
      phone.setDefaultTimeout(60_000)
      for (const [name, hash, text] of [
        ['overview', '', /published here/], ['upload', address('upload', id), /1 follower ·/], ['user', address('user', id), /1 connection to/],
      ]) {
        const tab = await open(hash, { within: phone })
        await tab.page.getByText(text).waitFor()
        assert.equal(await tab.page.evaluate(() => document.documentElement.scrollWidth), 360, `${name} is wider than the screen`)
        assert.deepEqual(await tab.page.evaluate(contrasts), [], `${name}, ${colorScheme}`)
        const picture = join(process.env.SHOAL_SCREENSHOTS ?? folder, `${name}-${colorScheme}-phone.png`)
        await tab.page.screenshot({ path: picture })
        assert.ok((await stat(picture)).size > 5000)
        assert.equal(await tab.page.locator('.skip').evaluate((e) => getComputedStyle(e).transitionDuration), '0s')
        assert.deepEqual(tab.complaints, [])
        await tab.page.close()
      }
      await phone.close()
    }
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('the dashboard can be used by keyboard', async () => {
  const { page, complaints } = await open()
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className)
  await page.keyboard.press('Tab')
  assert.equal(await focused(), 'skip')
  assert.notEqual(await page.locator('.skip').evaluate((link) => getComputedStyle(link).outlineStyle), 'none', 'focus is seen')
  await page.keyboard.press('Enter')
  assert.equal(await focused(), 'main')
  await page.getByRole('button', { name: 'Read-only: enter key' }).focus()
  await page.keyboard.press('Enter')
  await page.getByRole('dialog', { name: 'API key' }).waitFor()
  assert.equal(await focused(), 'key')
  await page.keyboard.press('Escape')
  assert.equal(await focused(), 'key-button', 'focus returns from the dialog')
  await page.keyboard.press('Tab')
  assert.equal(await focused(), 'find-kind')
  await page.keyboard.press('Tab')
  await page.keyboard.type('by-keyboard')
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: 'Upload by-keyboard' }).waitFor()
  await page.waitForFunction(() => document.activeElement.id === 'main')
  for (const landmark of ['banner', 'navigation', 'main', 'contentinfo', 'search']) {
    assert.equal(await page.getByRole(landmark).count(), 1, `one landmark ${landmark}`)
  }
  assert.equal(await page.evaluate(() => [...document.querySelectorAll('input, select, textarea')]
    .filter((field) => field.labels.length === 0 && !field.ariaLabel).length), 0, 'every field has a label')
  assert.deepEqual(complaints, [])
})

test('closings of a server that was started again are all newer than the page', async () => {
  const again = await Server.start()
  const leave = async () => {
    const stream = await openStream(again, 'lea', 'left')
    stream.abort()
    await stream.ended
  }
  try {
    await leave()
    const { page } = await open('', { on: again })
    const cells = page.getByRole('region', { name: 'Closings' }).locator('tbody td')
    await cells.getByText('left by itself').waitFor()
    assert.deepEqual(await cells.allTextContents(), ['–', 'left by itself', '1', ''])
    await again.kill()
    await again.begin()
    await page.getByText('No connection has ended yet.').waitFor()
    await leave()
    await cells.getByText('+1').waitFor()
    assert.deepEqual(await cells.allTextContents(), ['–', 'left by itself', '1', '+1'])
  } finally {
    await again.kill()
  }
})

test('a dashboard that needs the key for reading says so, and a lost server is noticed', async () => {
  const closed = await Server.start('--dashboard', 'key')
  try {
    await follow('cat', 'of-cat', closed)
    const tab = await open('', { on: closed })
    const { page } = tab
    await page.getByText('Enter an API key to see users and addresses.').waitFor()
    await page.goto(`${closed.admin}/dashboard/${address('user', 'cat')}`)
    await page.getByText('Users, addresses and messages need an API key here.').waitFor()
    assert.equal(await page.getByText('of-cat').count(), 0)
    await enterKey(tab)
    await page.getByRole('link', { name: 'of-cat' }).waitFor()
    await page.getByRole('link', { name: '← Overview' }).click()
    await page.getByText('No connection is waiting.').waitFor()

    await closed.kill()
    await page.getByText(/^No connection to the server.*The numbers are of/).waitFor()
    assert.ok(await page.locator('body').evaluate((body) => body.classList.contains('stale')))
    await page.locator('.overview').evaluate((overview) => Promise.all(overview.getAnimations().map((a) => a.finished)))
    assert.deepEqual(await page.evaluate(contrasts), [], 'old numbers can be read')
    await closed.begin()
    await tab.connection('live')
    await page.waitForFunction(() => document.getElementById('banner').hidden)
    await page.getByRole('button', { name: 'API key in use' }).waitFor()
  } finally {
    await closed.kill()
  }
})

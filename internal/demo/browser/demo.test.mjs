// The demo page in a real browser, against the real server.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { browser, context, server, Tab, randomFile, randomPicture, useBrowser } from './harness.mjs'

useBrowser({ viewport: { width: 900, height: 900 } })

function progress(id, percent, message) {
  return {
    action: 'upload_progress',
    payload: {
      upload_id: id, status: 'working', stage: 'looking', progress_percent: percent, message,
      error_message: null, description_audit_score: null,
    },
  }
}

function sha256(file) {
  return createHash('sha256').update(file.buffer).digest('hex')
}

// A page that loses its server cannot keep the browser from noting it. After two sockets that did not open, the client asks
// for an event stream, first without an upload: the 400 tells it that the server is there.
const NETWORK_FAILURE = /^Failed to load resource: (net::ERR_|.*status of 400 )|^WebSocket connection to '[^']*' failed|^WebSocket is closed before/

test('two tabs follow an upload, through the death of the server', async () => {
  const file = randomFile('film.mp4', 16 << 20)
  const first = await Tab.open(context, server.url)
  await first.connection('live')
  await first.slowDown(2 << 20)
  await first.page.getByLabel('Choose files').setInputFiles(file)
  const halfway = await first.beyond(file.name, 10)

  const second = await Tab.open(context, server.url)
  await second.connection('live')
  const seen = await second.beyond(file.name, halfway - 1) // the state is there at once, and goes on
  await Promise.all([first.beyond(file.name, seen + 2), second.beyond(file.name, seen + 2)])

  await server.kill()
  await Promise.all([first.connection('waiting'), second.connection('waiting')])
  await first.cardState(file.name, 'interrupted')
  assert.match(await first.page.locator('#connection-text').textContent(), /^Reconnecting in \d+ s$|^Connecting…$/)

  await server.begin()
  await Promise.all([first.connection('live'), second.connection('live')])
  await Promise.all([first.cardState(file.name, 'working'), second.cardState(file.name, 'working')])
  await first.slowDown(-1)
  await Promise.all([first.cardState(file.name, 'completed'), second.cardState(file.name, 'completed')])
  for (const tab of [first, second]) {
    await tab.card(file.name).getByText(sha256(file)).waitFor()
    assert.equal(await tab.percent(file.name), 100)
    assert.deepEqual(tab.complaints.filter((line) => !NETWORK_FAILURE.test(line)), [])
  }

  await server.kill() // and with it what it knew of the upload, which is over all the same
  await server.begin()
  await first.connection('live')
  const small = randomFile('note.txt', 100)
  await first.page.getByLabel('Choose files').setInputFiles(small)
  await first.cardState(small.name, 'completed')
  await first.cardState(file.name, 'completed')
})

test('a picture is shown with what was found out about it', async () => {
  const picture = randomPicture('reef.png', 640, 400)
  const tab = await Tab.open(context, server.url)
  await tab.page.getByLabel('Choose files').setInputFiles(picture)
  await tab.cardState(picture.name, 'completed')
  const card = tab.card(picture.name)
  for (const fact of ['image/png', '640 × 400 pixels', `${picture.buffer.length.toLocaleString('en')} bytes`, sha256(picture)]) {
    await card.getByText(fact, { exact: true }).waitFor()
  }
  await tab.page.waitForFunction(() => document.querySelector('.card img').naturalWidth === 320)

  const later = await Tab.open(context, server.url) // finds it in its end state
  await later.cardState(picture.name, 'completed')
  await later.page.waitForFunction(() => document.querySelector('.card img').naturalWidth === 320)

  await card.getByRole('button', { name: 'Remove' }).click()
  await tab.page.getByText('Nothing here yet').waitFor()
  assert.deepEqual([...tab.complaints, ...later.complaints], [])
})

test('a tab that takes an upload with it can send the file again', async () => {
  const file = randomFile('long.bin', 8 << 20)
  const tab = await Tab.open(context, server.url)
  await tab.connection('live')
  await tab.slowDown(1 << 20)
  await tab.page.getByLabel('Choose files').setInputFiles(file)
  await tab.beyond(file.name, 5)
  tab.page.on('dialog', (dialog) => dialog.accept()) // the page asks before it lets the upload be cut off
  await tab.page.reload()
  await tab.cardState(file.name, 'failed')
  await tab.card(file.name).getByText(/cut off after/).waitFor()
  await tab.slowDown(-1)
  const chooser = tab.page.waitForEvent('filechooser')
  await tab.card(file.name).getByRole('button', { name: 'Retry' }).click()
  await (await chooser).setFiles(file)
  await tab.cardState(file.name, 'completed')
  await tab.card(file.name).getByText(sha256(file)).waitFor()
})

test('an upload whose id is typed in is followed', async () => {
  const id = `it's "my" upload`
  await server.publish(id, progress(id, 40, 'Looking closely'))
  const tab = await Tab.open(context, server.url)
  await tab.page.getByRole('textbox', { name: 'Follow an upload by its id' }).fill(id)
  await tab.page.keyboard.press('Enter')
  await tab.beyond(id, 39) // the newest message, at once
  await tab.card(id).getByText('Looking closely').waitFor()
  await server.publish(id, { ...progress(id, 60, '<b>Bold</b>') })
  await tab.card(id).getByText('<b>Bold</b>').waitFor() // text, not markup
  await server.publish(id, { action: 'upload_failed', upload_id: id, error_message: 'No frames' })
  await tab.cardState(id, 'failed')

  const curl = await tab.page.locator('#curl').textContent()
  assert.ok(curl.includes(`"upload_id":"it'\\''s \\"my\\" upload"`), curl)
  await tab.page.getByRole('textbox').fill('')
  await tab.page.getByRole('button', { name: 'Follow', exact: true }).click()
  assert.equal(await tab.page.locator('.card').count(), 1, 'an empty id is not followed')
  assert.deepEqual(tab.complaints, [])
})

// A browser and curl resolve these in an address, however they are written.
test('an upload whose id is a dot, or two, is followed and published to', async () => {
  const tab = await Tab.open(context, server.url)
  await tab.connection('live')
  for (const id of ['.', '..']) {
    await tab.page.getByRole('textbox').fill(id)
    await tab.page.keyboard.press('Enter')
    await tab.cardState(id, 'waiting')
    execFileSync('sh', ['-c', await tab.page.locator('#curl').textContent()], { stdio: 'ignore' })
    await tab.beyond(id, 39)
    const done = JSON.stringify({
      upload_id: id, message: { action: 'upload_completed', upload_id: id, description: 'Done', audit_score: 1 },
    })
    const answer = await fetch(`${server.url}/v1/messages`, {
      method: 'POST', body: done, headers: { Authorization: 'Bearer dev', 'Content-Type': 'application/x-ndjson' },
    })
    assert.equal(answer.status, 202, await answer.text())
    await tab.cardState(id, 'completed')
  }
  assert.deepEqual(tab.complaints, [])
})

test('a message of an application shows no percent, and begins nothing that has ended', async () => {
  const tab = await Tab.open(context, `${server.url}/#follow=own`)
  await tab.connection('live')
  const card = tab.card('own')
  const shown = () => card.evaluate((element) => [element.dataset.state, element.querySelector('.percent').textContent])
  await server.publish('own', { action: 'build_log', message: 'compiled' })
  await card.getByText('compiled').waitFor()
  assert.deepEqual(await shown(), ['working', ''])
  assert.equal(await card.getByRole('progressbar').getAttribute('aria-valuetext'), 'build_log')
  await server.publish('own', { action: 'upload_completed', upload_id: 'own', description: 'Done', audit_score: 1 })
  await tab.cardState('own', 'completed')
  await server.publish('own', { action: 'build_log', message: 'tidied up' })
  await card.getByText('tidied up').waitFor()
  assert.deepEqual(await shown(), ['completed', '100 %'])
  await card.getByText('1 of 100').waitFor()
  await server.publish('own', progress('own', 0, 'Once more'))
  await card.getByText('Once more').waitFor()
  assert.deepEqual(await shown(), ['working', '0 %'])
})

test('a long message of an application leaves room for the other uploads', async () => {
  const tab = await Tab.open(context, `${server.url}/#follow=long`)
  await server.publish('long', { action: '\u202e'.padEnd(2000, 'a'), message: 'm'.repeat(20_000) })
  const card = tab.card('long')
  await card.getByText('mmm').waitFor()
  const { height } = await card.boundingBox()
  assert.ok(height < 400, `the card is ${height} pixels high`)
  assert.equal(await card.locator('.stage').evaluate((stage) => getComputedStyle(stage).unicodeBidi), 'isolate')
})

test('more files than the page can show are named and not sent', async () => {
  const tab = await Tab.open(context, server.url)
  await tab.connection('live')
  await tab.page.getByLabel('Choose files').setInputFiles(Array.from({ length: 205 }, (_, i) => randomFile(`${i}.bin`, 1)))
  await tab.page.getByText('5 files were not taken. This page shows at most 200 uploads: remove some first.').waitFor()
  assert.equal(await tab.page.locator('.card').count(), 200)
  await tab.page.getByRole('textbox').fill('one more')
  await tab.page.keyboard.press('Enter')
  await tab.page.getByText(/^This page shows at most 200 uploads/).waitFor()
  await tab.page.getByRole('button', { name: 'Remove 0.bin from this page' }).click()
  await tab.page.getByRole('button', { name: 'Follow', exact: true }).click()
  await tab.cardState('one more', 'waiting')
  assert.deepEqual(tab.complaints, [])
})

test('a file that is dropped beside the field does not take the place of the page', async () => {
  const { page } = await Tab.open(context, server.url)
  const prevented = await page.evaluate(() => ['h1', '#upload-id', '#file'].map((selector) => {
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File(['x'], 'x.txt'))
    return ['dragover', 'drop'].map((type) => {
      const event = new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true })
      document.querySelector(selector).dispatchEvent(event)
      return event.defaultPrevented
    })
  }))
  assert.deepEqual(prevented, [[true, true], [true, true], [false, false]])
})

test('a link to an upload opens it in another browser', async () => {
  await server.publish('shared', progress('shared', 70, 'Nearly there'))
  const tab = await Tab.open(context, `${server.url}/#follow=shared`)
  await tab.beyond('shared', 69)
})

test('a link that names no upload changes nothing', async () => {
  const tab = await Tab.open(context, `${server.url}/#follow=%ff&follow=%00&follow=`)
  await tab.connection('live')
  await tab.page.getByText('Nothing here yet').waitFor()
  assert.match(await tab.page.locator('#curl').textContent(), /^curl /, 'the page works')
  await tab.page.getByRole('textbox').fill('\ufffd')
  await tab.page.keyboard.press('Enter')
  await tab.page.getByText('An id has no control or replacement characters.').waitFor()
  assert.equal(await tab.page.locator('.card').count(), 0)
  assert.deepEqual(tab.complaints, [])
})

test('the page fits a phone and keeps still where that is wished', async () => {
  const name = `a-name-that-is-much-too-long-for-a-phone-${'x'.repeat(60)}.png`
  for (const [colorScheme, width] of [['light', 360], ['dark', 320]]) {
    const phone = await browser.newContext({ viewport: { width, height: 740 }, colorScheme, reducedMotion: 'reduce' })
    const tab = await Tab.open(phone, server.url)
    await tab.page.getByLabel('Choose files').setInputFiles(randomPicture(name, 64, 64))
    await tab.cardState(name, 'completed')
    await tab.page.locator('.hash').waitFor()
    assert.equal(await tab.page.evaluate(() => document.documentElement.scrollWidth), width, 'nothing reaches beyond the screen')
    assert.equal(await tab.page.locator('.fill').evaluate((fill) => getComputedStyle(fill).transitionDuration), '0s')
    await phone.close()
  }
})

test('the page can be used by keyboard and heard', async () => {
  const tab = await Tab.open(context, server.url)
  await tab.connection('live')
  const { page } = tab
  await page.keyboard.press('Tab')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'file', 'the first stop is the choice of files')
  assert.notEqual(await page.locator('#drop').evaluate((drop) => getComputedStyle(drop).outlineStyle), 'none', 'focus is seen')
  await page.evaluate(() => {
    globalThis.heard = []
    const announcer = document.querySelector('[role=status]')
    new MutationObserver(() => heard.push(announcer.textContent)).observe(announcer, { childList: true })
  })
  const file = randomFile('sound.wav', 4 << 20)
  await page.getByLabel('Choose files').setInputFiles(file)
  await tab.cardState(file.name, 'completed')

  const bar = page.getByRole('progressbar', { name: `Progress of ${file.name}` })
  assert.deepEqual(await bar.evaluate((element) => ['min', 'max', 'now', 'text'].map((part) => element.getAttribute(`aria-value${part}`))),
    ['0', '100', '100', '100 percent, Completed'])
  const heard = await page.evaluate(() => globalThis.heard)
  assert.ok(heard.some((line) => line.startsWith(`${file.name}: Completed`)), 'the end is announced')
  assert.ok(heard.length <= 5 && !heard.some((line) => /percent|%/.test(line)), `stages are announced, not percents: ${heard}`)

  await page.getByRole('heading', { level: 1 }).waitFor()
  assert.equal(await page.locator('html').getAttribute('lang'), 'en')
  assert.equal(await page.locator('[role=status]').getAttribute('aria-live'), 'polite')
  for (const name of [`Copy link to ${file.name}`, `Remove ${file.name} from this page`, 'Follow', 'Copy the curl line', 'Copy the shoal line']) {
    await page.getByRole('button', { name, exact: true }).waitFor()
  }
  await page.getByRole('button', { name: `Remove ${file.name} from this page` }).focus()
  await page.keyboard.press('Enter')
  await page.getByText('Nothing here yet').waitFor()
  assert.equal(await page.evaluate(() => document.activeElement.id), 'file', 'focus is not lost with the card')
})

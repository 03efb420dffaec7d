// What the browser tests stand on: the real server, the system's Chromium, and files to upload.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { after, afterEach, before, beforeEach } from 'node:test'
import { fileURLToPath } from 'node:url'
import { deflateSync } from 'node:zlib'

// The modules of the client's tests serve these too.
const { chromium } = createRequire(new URL('../../../client/js/package.json', import.meta.url))('playwright-core')

const BINARY = process.env.SHOAL_BIN ?? fileURLToPath(new URL('../../../bin/shoal', import.meta.url))
const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium'
const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
]

// The server and the browser of a file's tests, and the profile of the browser that each test has for itself.
export let server
export let browser
export let context

// useBrowser has the tests of a file run with a server, a browser and a profile. options are those of the profile, timeout is
// the time for each step of a page in milliseconds.
export function useBrowser(options = {}, timeout = 60_000) {
  before(async () => {
    assert.ok(existsSync(BROWSER), `no browser at ${BROWSER}: install Chromium, or set CHROMIUM to where it is`)
    server = await Server.start()
    browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS })
  })
  after(async () => {
    await browser?.close()
    await server?.kill()
  })
  beforeEach(async () => {
    context = await browser.newContext(options)
    context.setDefaultTimeout(timeout)
  })
  afterEach(() => context.close())
}

// Server is a development server that can be killed and started again on the same port.
export class Server {
  #process = null
  #ended = null

  // start starts a server with further flags.
  static async start(...flags) {
    assert.ok(existsSync(BINARY), `no server at ${BINARY}: build it, or set SHOAL_BIN to where it is`)
    const server = new Server()
    server.flags = flags
    server.adminPort = await freePort()
    server.admin = `http://127.0.0.1:${server.adminPort}`
    server.port = await freePort()
    server.url = `http://127.0.0.1:${server.port}`
    await server.begin()
    return server
  }

  // begin returns when the server has said where its page is.
  async begin() {
    const args = [
      'serve', '--dev', '--addr', `127.0.0.1:${this.port}`, '--admin-addr', `127.0.0.1:${this.adminPort}`, ...this.flags,
    ]
    const child = spawn(BINARY, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#process = child
    this.#ended = new Promise((resolve) => child.once('exit', resolve))
    let output = ''
    await new Promise((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (data) => {
          output += data
          if (output.includes('demo page:')) resolve()
        })
      }
      child.once('error', reject)
      child.once('exit', (code) => reject(new Error(`the server ended with ${code}:\n${output}`)))
    })
  }

  async kill() {
    this.#process.kill('SIGKILL')
    await this.#ended
  }

  // publish sends a message through the HTTP API, as curl would.
  async publish(id, message) {
    const answer = await fetch(`${this.url}/v1/uploads/${encodeURIComponent(id)}/messages`, {
      method: 'POST', body: JSON.stringify(message),
      headers: { Authorization: 'Bearer dev', 'Content-Type': 'application/json' },
    })
    assert.equal(answer.status, 202, await answer.text())
  }
}

async function freePort() {
  const listener = createServer()
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve))
  const { port } = listener.address()
  await new Promise((resolve) => listener.close(resolve))
  return port
}

// randomFile is what no compression makes smaller, as setInputFiles takes it.
export function randomFile(name, bytes) {
  return { name, mimeType: 'application/octet-stream', buffer: randomBytes(bytes) }
}

// randomPicture is a PNG of noise.
export function randomPicture(name, width, height) {
  const rows = Array.from({ length: height }, () => Buffer.concat([Buffer.of(0), randomBytes(width * 3)]))
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header.set([8, 2], 8) // eight bits, RGB
  const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')
  const chunks = [chunk('IHDR', header), chunk('IDAT', deflateSync(Buffer.concat(rows))), chunk('IEND', Buffer.alloc(0))]
  return { name, mimeType: 'image/png', buffer: Buffer.concat([signature, ...chunks]) }
}

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type), data])
  const length = Buffer.alloc(4)
  const sum = Buffer.alloc(4)
  length.writeUInt32BE(data.length)
  sum.writeUInt32BE(crc32(body))
  return Buffer.concat([length, body, sum])
}

// crc32 is the checksum of a PNG's chunks. node:zlib has one only from Node.js 20 on.
function crc32(data) {
  let crc = ~0
  for (const byte of data) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xEDB88320 : 0)
  }
  return ~crc >>> 0
}

// Tab is the demo page in one tab, with what it complained about.
export class Tab {
  complaints = []

  static async open(context, url) {
    const tab = new Tab()
    tab.page = await context.newPage()
    tab.page.on('pageerror', (error) => tab.complaints.push(String(error)))
    tab.page.on('console', (line) => {
      if (['error', 'warning'].includes(line.type())) tab.complaints.push(line.text())
    })
    await tab.page.goto(url)
    return tab
  }

  // connection waits until the page shows the connection's state.
  connection(state) {
    return this.page.waitForFunction((want) => document.getElementById('connection').dataset.state === want, state)
  }

  card(name) {
    return this.page.getByRole('listitem').filter({ has: this.page.getByRole('heading', { name, exact: true }) })
  }

  // cardState waits until the upload's card shows the state.
  cardState(name, state) {
    return this.page.waitForFunction(([title, want]) => [...document.querySelectorAll('.card')]
      .some((card) => card.querySelector('h3').textContent === title && card.dataset.state === want), [name, state])
  }

  async percent(name) {
    return Number(await this.card(name).getByRole('progressbar').getAttribute('aria-valuenow'))
  }

  // beyond waits until the upload's bar has passed the percent, and returns where it is.
  async beyond(name, percent) {
    await this.page.waitForFunction(([title, than]) => [...document.querySelectorAll('.card')]
      .some((card) => card.querySelector('h3').textContent === title &&
        Number(card.querySelector('[role=progressbar]').getAttribute('aria-valuenow')) > than), [name, percent])
    return this.percent(name)
  }

  // slowDown bounds how fast the tab sends, in bytes a second; -1: no bound.
  async slowDown(bytes) {
    this.session ??= await this.page.context().newCDPSession(this.page)
    await this.session.send('Network.enable')
    await this.session.send('Network.emulateNetworkConditions', {
      offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: bytes,
    })
  }
}

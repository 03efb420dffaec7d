// The published package in a fresh application with Vite, TypeScript and React.

import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { type Server as HttpServer, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Browser, chromium } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { FLAGS, Server, progress, token } from './harness.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
let folder: string
let pages: HttpServer
let server: Server
let browser: Browser
let address: string

// The application has a copy of its own of what is packed, and the other modules of this folder.
function install(): void {
  folder = mkdtempSync(`${tmpdir()}/shoal-vite-`)
  cpSync(`${root}test/vite-app`, folder, { recursive: true })
  const run = (command: string, args: string[], cwd: string) => execFileSync(command, args, { cwd, encoding: 'utf8', stdio: 'pipe' })
  const [{ filename }] = JSON.parse(run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], root))
  mkdirSync(`${folder}/node_modules/@shoal/client`, { recursive: true })
  run('tar', ['-xzf', filename, '--strip-components=1', '-C', 'node_modules/@shoal/client'], folder)
  for (const name of readdirSync(`${root}node_modules`)) {
    if (!name.startsWith('.') && name !== '@shoal') symlinkSync(`${root}node_modules/${name}`, `${folder}/node_modules/${name}`)
  }
  run(process.execPath, [`${root}node_modules/typescript/bin/tsc`, '-p', '.'], folder)
  run(process.execPath, [`${root}node_modules/vite/bin/vite.js`, 'build', '--logLevel', 'error'], folder)
}

beforeAll(async () => {
  install()
  const types: Record<string, string> = { '.js': 'text/javascript', '.html': 'text/html' }
  pages = createServer((request, response) => {
    const { pathname } = new URL(request.url!, address)
    if (pathname === '/token') return response.end(token())
    const file = pathname === '/' ? '/index.html' : pathname
    response.writeHead(200, { 'Content-Type': types[extname(file)] ?? 'text/plain' })
    response.end(readFileSync(`${folder}/dist${file}`))
  })
  await new Promise<void>((resolve) => pages.listen(0, '127.0.0.1', resolve))
  address = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`
  server = await Server.start('--allowed-origin', address)
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS })
})

afterAll(async () => {
  await browser?.close()
  pages?.closeAllConnections()
  pages?.close()
  await server?.end()
  if (folder) rmSync(folder, { recursive: true })
})

test('a fresh application follows an upload', async () => {
  const page = await browser.newPage()
  page.setDefaultTimeout(20_000)
  const complaints: string[] = []
  page.on('console', (entry) => ['error', 'warning'].includes(entry.type()) && complaints.push(entry.text()))
  page.on('pageerror', (error) => complaints.push(String(error)))
  await page.goto(`${address}/?id=u&server=${encodeURIComponent(server.url)}`)
  await page.waitForFunction(() => document.getElementById('upload')?.textContent === 'live')
  await server.publish('u', progress('u', 40), { action: 'log', line: 'first' })
  await page.getByText('first').waitFor()
  await server.publish('u', progress('u', 60))
  await page.waitForFunction(() => document.querySelector('progress')?.value === 60)
  await server.publish('u', { action: 'upload_completed', upload_id: 'u', description: 'A reef', audit_score: 90 })
  await page.getByText('A reef').waitFor()
  expect(complaints).toEqual([])
})

// What is published: its size, its files, and that they work without the sources. `npm run build` has to come first.

import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { buildSync } from 'esbuild'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = (command: string, ...args: string[]) => execFileSync(command, args, { cwd: root, encoding: 'utf8' })
const size = (code: Uint8Array) => gzipSync(code, { level: 9 }).length

describe('size', () => {
  // The largest size of each file in bytes, minified and gzipped. index is loaded by every page; sse only where
  // WebSockets are blocked, tabs and react only where they are imported.
  test.each([['index', 5100], ['sse', 2000], ['tabs', 2800], ['react', 1000]])('of %s is at most %i bytes', (name, most) => {
    expect(size(readFileSync(`${root}dist/${name}.js`))).toBeLessThanOrEqual(most)
  })

  test('does not grow when an application is bundled', () => {
    const { outputFiles } = buildSync({
      stdin: { contents: 'import { connect } from "@shoal/client"; globalThis.connect = connect', resolveDir: root },
      bundle: true, minify: true, format: 'esm', splitting: true, outdir: '/', write: false,
    })
    expect(size(outputFiles.find(({ path }) => path.endsWith('stdin.js'))!.contents)).toBeLessThanOrEqual(5250)
  })
})

test('the files are those that a user needs', () => {
  const [{ files }] = JSON.parse(run('npm', 'pack', '--dry-run', '--json', '--ignore-scripts'))
  const names: string[] = files.map(({ path }: { path: string }) => path)
  expect(names.filter((name) => !name.endsWith('.d.ts')).sort()).toEqual([
    'LICENSE', 'README.md', 'dist/index.js', 'dist/react.js', 'dist/sse.js', 'dist/tabs.js', 'package.json',
  ])
  expect(names).toEqual(expect.arrayContaining(['dist/index.d.ts', 'dist/react.d.ts', 'dist/tabs.d.ts', 'dist/types.d.ts']))
})

test('each entry loads in Node.js, and needs React only where it is used', () => {
  const script = `
    const { connect, ShoalError } = await import('@shoal/client')
    const { tabs } = await import('@shoal/client/tabs')
    const { ShoalProvider, useUpload, useConnection, useShoal } = await import('@shoal/client/react')
    try { tabs('') } catch (error) { console.log(error instanceof ShoalError) }
    console.log([connect, ShoalProvider, useUpload, useConnection, useShoal].every((f) => typeof f === 'function'))`
  expect(run('node', '--input-type=module', '-e', script)).toBe('true\ntrue\n')
  expect(readFileSync(`${root}dist/index.js`, 'utf8')).not.toMatch(/["']react["']/)
})

// An older setting of TypeScript, which reads no "exports", is still the standard one for CommonJS.
test('a program in CommonJS requires each entry, and has its types', () => {
  const folder = mkdtempSync(`${tmpdir()}/shoal-commonjs-`)
  mkdirSync(`${folder}/node_modules/@shoal`, { recursive: true })
  symlinkSync(root, `${folder}/node_modules/@shoal/client`)
  writeFileSync(`${folder}/program.ts`, `
    import { ShoalError, connect } from '@shoal/client'
    import { useUpload } from '@shoal/client/react'
    import { tabs } from '@shoal/client/tabs'
    const share = () => tabs('')
    for (const call of [() => connect('', { token: () => 't' }), share]) {
      try { call() } catch (error) { console.log(error instanceof ShoalError && error.code) }
    }
    console.log(typeof useUpload)`)
  try {
    const compile = () => run('node', 'node_modules/typescript/bin/tsc', '--module', 'commonjs', '--moduleResolution', 'node10',
      '--strict', '--target', 'es2022', '--lib', 'es2022,dom', '--skipLibCheck', '--preserveSymlinks', `${folder}/program.ts`)
    expect(compile).not.toThrow()
    expect(run('node', `${folder}/program.js`)).toBe('bad_url\nbad_option\nfunction\n')
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('the demo page has the client that is built from these sources', () => {
  const folder = mkdtempSync(`${tmpdir()}/shoal-client-`)
  run('node', 'build.mjs', `${folder}/shoal.js`)
  const built = readFileSync(`${folder}/shoal.js`, 'utf8')
  rmSync(folder, { recursive: true })
  const page = 'internal/demo/page/assets/shoal.js'
  expect(readFileSync(`${root}../../${page}`, 'utf8') === built, `run: node client/js/build.mjs ${page}`).toBe(true)
})

test('React on a server takes the hooks for code of the browser', () => {
  expect(readFileSync(`${root}dist/react.js`, 'utf8')).toMatch(/^"use client";/)
})

test('nothing is needed at run time', () => {
  const manifest = JSON.parse(readFileSync(`${root}package.json`, 'utf8'))
  expect(manifest.dependencies).toBeUndefined()
  expect(manifest.peerDependenciesMeta.react.optional).toBe(true)
  expect(readFileSync(`${root}package-lock.json`, 'utf8')).not.toContain('"resolved"')
})

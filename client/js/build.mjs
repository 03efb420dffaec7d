// Builds dist: one minified module per entry, and the types. `node build.mjs FILE` builds the client alone, into FILE.

import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { minify } from 'terser'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const [file] = process.argv.slice(2)

// INTERNAL are properties that get shorter names: those of objects which neither applications nor other entries see.
const INTERNAL = /^(followers|dropping|stopped|seen|hasRoom|claim|probe|pong|room|renewIn|refuse|fail|isLive|connection|ended|other|unfollow|closed|answer|wake|end|auth)$/
// SHARED are those which another entry sees, with their names there.
const SHARED = { isLive: 'l', connection: 'c', ended: 'e', other: 'o', unfollow: 'u', answer: 'a', wake: 'w' }

// bundle returns the name and the code of each module.
async function bundle(options) {
  const { outputFiles } = await build({
    bundle: true, minify: true, format: 'esm', target: 'es2022', logLevel: 'warning', write: false, outdir: here('dist'),
    mangleProps: INTERNAL, mangleCache: SHARED,
    ...options,
  })
  return Promise.all(outputFiles.map(async ({ path, text }) => {
    // Functions stay where they are written: inside others they would grow when an application minifies its bundle.
    const compress = { passes: 3, hoist_funs: true, reduce_funcs: false }
    const { code } = await minify(text, { module: true, ecma: 2022, compress })
    const name = basename(path)
    // Where React renders on a server, this module is a boundary: what it exports runs in the browser.
    return [name, name === 'react.js' ? `"use client";${code}` : code]
  }))
}

if (file) {
  const [[, code]] = await bundle({ entryPoints: [here('src/index.ts')] })
  writeFileSync(file, `// Built from client/js/src by client/js/build.mjs. Do not edit: change the sources and build again.\n${code}\n`)
} else {
  rmSync(here('dist'), { recursive: true, force: true })
  mkdirSync(here('dist'))
  // The entries share nothing but what index exports, so that an application has each class once.
  const modules = [
    ...await bundle({ entryPoints: [here('src/index.ts'), here('src/sse.ts')], splitting: true }),
    ...await bundle({ entryPoints: [here('src/tabs.ts'), here('src/react.ts')], external: ['react', './index.js'] }),
  ]
  for (const [name, code] of modules) writeFileSync(here(`dist/${name}`), code)
  execFileSync(process.execPath, [here('node_modules/typescript/bin/tsc'), '-p', here('.')], { stdio: 'inherit' })
}

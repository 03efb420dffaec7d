// Builds dist: one minified module per entry, and the types. `node build.mjs FILE` builds the client alone, into FILE.

import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const options = { bundle: true, minify: true, format: 'esm', target: 'es2022', logLevel: 'warning' }
const [file] = process.argv.slice(2)

if (file) {
  const js = '// Built from client/js/src by client/js/build.mjs. Do not edit: change the sources and build again.'
  await build({ ...options, entryPoints: [here('src/index.ts')], outfile: file, banner: { js } })
} else {
  rmSync(here('dist'), { recursive: true, force: true })
  const outdir = here('dist')
  // The entries share nothing but what index exports, so that an application has each class once.
  await build({ ...options, entryPoints: [here('src/index.ts'), here('src/sse.ts')], outdir, splitting: true })
  await build({ ...options, entryPoints: [here('src/tabs.ts'), here('src/react.ts')], outdir, external: ['react', './index.js'] })
  execFileSync(process.execPath, [here('node_modules/typescript/bin/tsc'), '-p', here('.')], { stdio: 'inherit' })
}

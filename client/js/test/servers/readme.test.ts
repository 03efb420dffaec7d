// The five-minute start of the README, as a reader would go through it: the server, the program and the two publications.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const binary = process.env.SHOAL_BIN ?? fileURLToPath(new URL('../../../../bin/shoal', import.meta.url))
const processes: ChildProcess[] = []

afterEach(async () => {
  for (const child of processes.splice(0).filter(({ exitCode }) => exitCode === null)) {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
})

// start starts a program and returns a function that waits until its output matches.
function start(program: string, ...args: string[]): { child: ChildProcess, printed: (pattern: RegExp) => Promise<RegExpMatchArray> } {
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  processes.push(child)
  let output = ''
  const printed = (pattern: RegExp) => new Promise<RegExpMatchArray>((resolve, reject) => {
    const look = (data: unknown = '') => {
      output += data
      const match = output.match(pattern)
      if (match) resolve(match)
    }
    child.stdout!.on('data', look)
    child.stderr!.on('data', look)
    child.once('exit', (code) => reject(new Error(`${program} ended with ${code}:\n${output}`)))
    look()
  })
  return { child, printed }
}

test('the five-minute start works as it is written', async () => {
  const blocks = [...readFileSync(`${root}README.md`, 'utf8').matchAll(/```sh\n(.*?)```/gs)].map(([, text]) => text!)
  expect(blocks).toHaveLength(3)
  expect(blocks[0]).toBe('shoal serve --dev\n')
  const server = start(binary, 'serve', '--dev', '--addr', '127.0.0.1:0', '--admin-addr', '127.0.0.1:0')
  const [, url] = await server.printed(/shoal serves on (\S+),/)

  const program = blocks[1]!.match(/<<'EOF'\n(.*)EOF\nnode follow.mjs\n/s)![1]!
  expect(program).toContain("'http://127.0.0.1:8080'")
  const follower = start(process.execPath, '--experimental-websocket', '--input-type=module', '-e',
    program.replace('http://127.0.0.1:8080', url!))
  const ended = once(follower.child, 'exit')
  const publish = (command: string) => execFileSync('bash', ['-euo', 'pipefail', '-c', command],
    { env: { ...process.env, PATH: `${dirname(binary)}:${process.env.PATH}`, SHOAL_URL: url } })
  const commands = blocks[2]!.trim().split('\n')
  expect(commands).toHaveLength(2)
  publish(commands[0]!)
  await follower.printed(/^40 Looking closely$/m)
  publish(commands[1]!)
  expect(await ended).toEqual([0, null])
})

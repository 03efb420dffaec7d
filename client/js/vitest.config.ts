import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/*.test.ts', 'test/unit/*.test.tsx'] } },
      { test: { name: 'package', include: ['test/package/*.test.ts'], testTimeout: 60_000, hookTimeout: 60_000 } },
      { test: { name: 'servers', include: ['test/servers/*.test.ts'], testTimeout: 60_000, hookTimeout: 120_000,
        // Node.js 20 has a WebSocket of its own behind this flag; from 22 on it is always there.
        execArgv: ['--experimental-websocket'] } },
    ],
  },
})

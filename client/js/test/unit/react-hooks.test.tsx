// What hooks leave behind, without a browser: React subscribes as soon as a component renders.

import { renderToString } from 'react-dom/server'
import { expect, test, vi } from 'vitest'
import { ShoalProvider, useUpload } from '../../src/react.js'
import { installFakes, open } from './fakes.js'

installFakes()

vi.mock('react', async (original) => ({
  ...await original<typeof import('react')>(),
  useSyncExternalStore(subscribe: (listener: () => void) => () => void, snapshot: () => unknown) {
    subscribe(() => {})
    return snapshot()
  },
}))

function Upload({ id }: { id: string }) {
  return <p>{useUpload(id).state}</p>
}

test('useUpload throws for an id that is not valid, and leaves no listener', () => {
  const client = open()
  const subscribe = vi.spyOn(client, 'subscribe')
  const show = (id: string) => renderToString(<ShoalProvider client={client}><Upload id={id} /></ShoalProvider>)
  expect(() => show('a\nb')).toThrow(expect.objectContaining({ code: 'bad_id' }))
  expect(subscribe).not.toHaveBeenCalled()
  expect(show('u')).toBe('<p>pending</p>')
  expect(subscribe).toHaveBeenCalledOnce()
})

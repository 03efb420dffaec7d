// A server that says what no Shoal server says, and a program that calls the client in ways that its types forbid.

import { expect, test, vi } from 'vitest'
import { connect } from '../../src/index.js'
import { FakeSocket, again, hear, installFakes, live, open, pass, progress, resumed, settle, subscribed } from './fakes.js'

installFakes()

// A position that the server would refuse would fail all uploads of the same message.
test.each(['"x"', '"9"', '1.5', '-1', '1e999', '9007199254740993', 'null', '{}', '[7]', 'true'])(
  'an offset of %s is none: the message comes, and the position stays', async (offset) => {
    const client = open()
    const { seen } = hear(client)
    const socket = await live()
    socket.says(subscribed(3), progress(3), `{"action":"own","upload_id":"u","offset":${offset}}`, progress(4))
    expect(seen).toEqual([3, 'own', 4])
    socket.ends()
    const next = await again(client)
    expect(next.sent.at(-1)).toEqual({ action: 'resume', uploads: { u: { epoch: 'e', offset: 4 } } })
    next.says(resumed(5), progress(5))
    expect(seen).toEqual([3, 'own', 4, 5])
  })

test.each([
  '"epoch":"e","offset":"9"', '"epoch":"e","offset":1.5', '"epoch":"e","offset":1e999', '"epoch":"e","offset":-1', '"epoch":"e"',
  '"epoch":7,"offset":9', '"epoch":"","offset":9', '"epoch":null,"offset":9', '"epoch":["e"],"offset":9', '"epoch":"\\ud800","offset":9',
  `"epoch":"${'x'.repeat(256)}","offset":9`,
])('an answer with %s changes no position', async (position) => {
  const client = open()
  const { seen } = hear(client)
  const socket = await live()
  socket.says(subscribed(3), progress(3))
  socket.says(`{"action":"subscribed","upload_id":"u",${position},"recovered":false}`)
  socket.says(`{"action":"resumed","uploads":{"u":{${position},"recovered":true}}}`)
  expect(client.status('u')).toMatchObject({ state: 'live', position: { epoch: 'e', offset: 3 } })
  socket.says(progress(4))
  expect(seen).toEqual([3, 4])
})

// It identifies users by the request, and answers the token as any message that it does not know.
test('a server that takes no token is named at once', async () => {
  const client = open()
  const { errors } = hear(client)
  const failed = expect(client.follow('u').next()).rejects.toMatchObject({ code: 'not_shoal' })
  await settle()
  const socket = FakeSocket.last
  socket.opens()
  socket.says({ action: 'error', code: 'unknown_action', message: 'the action is not known here' })
  expect(client.status()).toMatchObject({
    state: 'stopped', error: { code: 'not_shoal', message: 'host takes no token: the action is not known here' },
  })
  await failed
  expect([socket.closedWith, errors]).toEqual([1000, []])
  await pass(3_600_000)
  expect(FakeSocket.all.length).toBe(1)
})

// An error in the handler of a socket would end a process of Node.js, and leave the client where it was.
test('a refusal of the token whose text is none is not from Shoal', async () => {
  const client = open()
  const socket = await live()
  expect(() => socket.says({ action: 'auth_error', code: {}, message: { toString: 7 } })).not.toThrow()
  expect(() => socket.ends(4003)).not.toThrow()
  expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'not_shoal' } })
})

test.each(['75000', true, 75_000n, [75_000]])('an option of %o, which is no number, is refused', (value) => {
  for (const name of ['buffer', 'maxDelay', 'connectTimeout', 'silence']) {
    expect(() => connect('wss://host', { token: () => 't', [name]: value })).toThrow(
      expect.objectContaining({ code: 'bad_option', message: expect.stringContaining(name) }))
  }
})

test('a signal that is none leaves no follow behind', async () => {
  const client = open()
  expect(() => client.follow('u', () => {}, { signal: new AbortController() as any })).toThrow(TypeError)
  const { stop } = hear(client)
  const socket = await live()
  stop()
  await pass(1)
  expect(socket.sent.at(-1)).toEqual({ action: 'unsubscribe_upload', upload_id: 'u' })
})

test('a change calls the listeners of its upload, and looks at no others', async () => {
  const client = open()
  for (let i = 0; i < 1000; i++) client.subscribe(() => { throw new Error('of another upload') }, `u${i}`)
  let changes = 0
  const end = client.subscribe(() => changes++, 'u')
  hear(client)
  const socket = await live()
  const looks = vi.spyOn(Set.prototype, 'has')
  socket.says(subscribed(1))
  const { length } = looks.mock.calls
  looks.mockRestore()
  expect([changes, length < 20]).toEqual([2, true])
  end()
  const later = vi.fn()
  client.subscribe(later, 'u')
  end() // again, which must not end the other one
  socket.says(progress(1))
  expect([changes, later.mock.calls.length]).toEqual([2, 1])
})

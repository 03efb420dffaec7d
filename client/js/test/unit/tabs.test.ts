import { describe, expect, test, vi } from 'vitest'
import { FakeChannel, type FakeTab, alive, asked, following, freeze, installBrowser, leading, locks, newTab, rest } from './browser.js'
import { FakeSocket, hear, installFakes, live, pass, progress, subscribed } from './fakes.js'

installFakes()
installBrowser()

describe('a tab that comes later', () => {
  test('follows what it wants when it can be known to live, however late that is', async () => {
    const { socket } = await leading()
    let tab!: FakeTab
    const go = locks.delaying(() => { tab = newTab() })
    const { seen } = hear(tab.client, 'u')
    const dropped = hear(tab.client, 'dropped')
    await rest()
    dropped.stop()
    await pass(1)
    go()
    await rest()
    expect(asked(socket)).toEqual(['u'])
    socket.says(subscribed(0, false, 'e', 'u'), progress(1, 'u'))
    await alive(socket, 60)
    expect(asked(socket)).toEqual([])
    socket.says(progress(2, 'u'))
    await rest()
    expect([tab.client.status('u').state, seen]).toEqual(['live', [1, 2]])
    expect(FakeSocket.all.length).toBe(1)
  })

  test('gets the newest message once, whether it has an offset or not', async () => {
    const { socket } = await leading()
    socket.says(progress(undefined, 'lead'))
    await rest()
    const late = newTab()
    const { seen } = hear(late.client, 'lead')
    await rest()
    await alive(socket, 60)
    expect(seen).toEqual(['upload_progress'])
    expect(asked(socket)).toEqual([])
  })

  test('has the same status until it changes', async () => {
    const { tab, socket } = await leading()
    const { client } = newTab()
    await rest()
    const status = client.status()
    expect(status).toEqual(tab.client.status())
    await alive(socket, 60)
    expect(client.status()).toBe(status)
    socket.ends(1012)
    await rest()
    expect(client.status()).toMatchObject({ state: 'waiting', error: { code: 'restart', closeCode: 1012 } })
    expect(client.status()).toEqual(tab.client.status())
  })

  test('lets its uploads go when it ends, and no others', async () => {
    const { socket } = await leading()
    const { tab } = await following(socket)
    hear(tab.client, 'lead')
    await rest()
    tab.client.close()
    await rest()
    expect(asked(socket)).toEqual(['not u'])
  })

  test('follows an upload that was refused when it asks again', async () => {
    const { socket } = await leading()
    const { tab } = await following(socket)
    socket.says({ action: 'error', code: 'forbidden', message: 'no', upload_id: 'u' })
    await rest()
    expect(tab.client.status('u')).toMatchObject({ state: 'ended', error: { code: 'forbidden' } })
    hear(tab.client, 'u')
    await rest()
    expect(asked(socket)).toEqual(['u'])
  })
})

describe('the back/forward cache', () => {
  test('lets go of what a tab follows, which goes on where it was when it comes back', async () => {
    const { socket } = await leading()
    const { tab, seen } = await following(socket)
    tab.away()
    await rest()
    expect(asked(socket)).toEqual(['not u'])
    expect([tab.client.status().state, tab.client.status('u').state]).toEqual(['waiting', 'pending'])
    socket.says({ action: 'unsubscribed', upload_id: 'u' })
    tab.back()
    await rest()
    expect(asked(socket)).toEqual(['u since 1'])
    socket.says(subscribed(2, true, 'e', 'u'), progress(2, 'u'))
    await rest()
    expect([tab.client.status().state, tab.client.status('u').state, seen]).toEqual(['live', 'live', [1, 2]])
  })

  test('takes the place of the tab that leads, which then follows as the others do', async () => {
    const { tab, seen, socket } = await leading()
    await following(socket)
    socket.says(progress(1, 'lead'))
    await rest()
    tab.away()
    await rest()
    expect(socket.closedWith).toBe(1000)
    const next = await live()
    await rest()
    expect(asked(next)).toEqual(['u since 1'])
    tab.back()
    await rest()
    expect(asked(next)).toEqual(['lead since 1'])
    next.says(subscribed(2, true, 'e', 'lead'), progress(2, 'lead'))
    await rest()
    expect([tab.client.status().state, tab.client.status('lead').state, seen]).toEqual(['live', 'live', [1, 2]])
    expect(FakeSocket.all.length).toBe(2)
  })

  test('does not keep a tab from taking the place of a leader that is frozen', async () => {
    const { socket } = await leading()
    const request = locks.request.bind(locks)
    // The leader is given the lock of the tab that has left, and does not say so.
    vi.spyOn(locks, 'request').mockImplementation((name, how, action) => {
      return request(name, how, how.signal && locks.held.has(name) ? () => new Promise(() => {}) : action)
    })
    const { tab, seen } = await following(socket)
    freeze()
    tab.away()
    await rest()
    tab.back()
    await pass(5000)
    await rest()
    const next = await live()
    await rest()
    expect(asked(next)).toEqual(['u since 1'])
    next.says(subscribed(2, true, 'e', 'u'), progress(2, 'u'))
    await rest()
    expect(seen).toEqual([1, 2])
  })
})

test.each(['follows', 'leads'])('reconnect after close of a tab that %s does nothing', async (role) => {
  const { tab, socket } = await leading()
  const { client } = role === 'leads' ? tab : newTab()
  await rest()
  client.close()
  await rest()
  const channels = FakeChannel.all.size
  client.reconnect()
  await rest()
  expect([FakeChannel.all.size, client.status()]).toEqual([channels, { state: 'closed' }])
  expect([FakeSocket.all.length, socket.closedWith]).toEqual([1, role === 'leads' ? 1000 : undefined])
})

test('a tab that comes back ends the wait of the one that leads', async () => {
  vi.spyOn(Math, 'random').mockReturnValue(1)
  const { tab, socket } = await leading()
  const follower = newTab()
  await rest()
  socket.says({ action: 'reconnect', retry_after_ms: 0 })
  socket.ends()
  await rest()
  for (let i = 0; i < 5; i++) {
    await pass(tab.client.status().retryAt! - Date.now())
    FakeSocket.last.fails()
    await rest()
  }
  const sockets = FakeSocket.all.length
  follower.back()
  await rest()
  expect(FakeSocket.all.length).toBe(sockets + 1)
  await live()
  await rest()
  expect(follower.client.status().state).toBe('live')
})

test('reconnect in any tab has the one that leads try again where it has stopped', async () => {
  const { socket } = await leading()
  const { client } = newTab()
  await rest()
  socket.ends(1008)
  await rest()
  expect(client.status().state).toBe('stopped')
  client.reconnect()
  await rest()
  await live()
  await rest()
  expect([client.status().state, FakeSocket.all.length]).toEqual(['live', 2])
})

test.each(['locks', 'locks that work', 'channels'])('a page without %s has a connection of its own, also after it was away', async (missing) => {
  if (missing === 'locks') locks.refused = 'SecurityError'
  else if (missing === 'locks that work') vi.spyOn(locks, 'request').mockImplementation(() => { throw new TypeError('no function') })
  else FakeChannel.refused = true
  const tab = newTab()
  const { seen } = hear(tab.client, 'u')
  await rest()
  const socket = await live()
  socket.says(subscribed(0, false, 'e', 'u'), progress(1, 'u'))
  await rest()
  expect([seen, FakeChannel.all.size]).toEqual([[1], 0])
  tab.away()
  await rest()
  expect(socket.closedWith).toBe(1000)
  tab.back()
  await rest()
  const next = await live()
  expect(asked(next)).toEqual(['u since 1'])
  tab.client.close()
  await rest()
  expect([next.closedWith, FakeSocket.all.length, FakeChannel.all.size]).toEqual([1000, 2, 0])
})

// A page that was loaded before a deploy goes on beside those that were loaded after it. The messages have the form that
// is written here: one that changes it changes PROTOCOL too, and the number here.
test('tabs with another form of the messages are not heard', async () => {
  const forms = new Set<string>()
  const post = vi.spyOn(FakeChannel.prototype, 'postMessage')
  const { socket } = await leading()
  const { tab } = await following(socket)
  hear(tab.client, 'v')
  hear(tab.client, 'w').stop()
  await rest()
  await pass(1)
  socket.says({ action: 'error', code: 'forbidden', message: 'no', upload_id: 'v' }, { action: 'own' })
  await rest()
  for (const [message] of post.mock.calls) forms.add(Object.keys(message).sort().join(' ').replace('kind', message.kind))
  expect([...forms].sort()).toEqual([
    'action claims from hello known', 'answer from id answer number term to', 'claims from follow known',
    'error from id ended number term to', 'from id unfollow known', 'from id message message term',
    'from other message term', 'from status status term', 'from status status term to',
  ].sort())
  const [channel] = FakeChannel.all
  expect(channel!.name).toBe('shoal 3 wss://host/ws/uploads ann')
  expect([...locks.held.keys()].every((name) => name.startsWith(channel!.name))).toBe(true)
})

test.each([
  ['before it hears of the new one', true], ['after it has heard of the new one', false],
])('a leader that was frozen loses its place, %s, and follows as the others do', async (_, first) => {
  const { tab, seen, socket } = await leading()
  await following(socket)
  const { robbed, thaw } = freeze()
  await pass(35_000)
  await rest()
  const next = await live()
  await rest()
  expect(asked(next)).toEqual(['u since 1'])
  if (first) {
    robbed()
    await rest()
    thaw()
  } else {
    thaw()
    await rest()
    robbed()
  }
  await rest()
  expect(socket.closedWith).toBe(1000)
  expect(asked(next)).toEqual(['lead since 0'])
  next.says(subscribed(1, true, 'e', 'lead'), progress(1, 'lead'))
  await alive(next, 60)
  expect([tab.client.status().state, tab.client.status('lead').state, seen]).toEqual(['live', 'live', [1]])
  expect([FakeSocket.all.length, asked(next)]).toEqual([2, []])
})

// A tab that has never heard of the former leader cannot know its term, which came from a clock that was set back since.
test('a leader that begins after the clock was set back is followed at once', async () => {
  const { socket } = await leading()
  const { tab, seen } = await following(socket)
  vi.setSystemTime(Date.now() - 3_600_000)
  const { robbed, thaw } = freeze()
  const fresh = newTab()
  const late = hear(fresh.client, 'v')
  await rest()
  await pass(5000)
  await rest()
  await live()
  await rest()
  const next = FakeSocket.last
  expect(asked(next).sort()).toEqual(['u since 1', 'v'])
  next.says(subscribed(2, true, 'e', 'u'), progress(2, 'u'), subscribed(0, false, 'e', 'v'), progress(1, 'v'))
  await rest()
  expect([tab.client.status().state, seen, late.seen]).toEqual(['live', [1, 2], [1]])
  robbed()
  thaw()
  await rest()
  expect(asked(next)).toEqual(['lead since 0'])
  expect(FakeSocket.all.filter(({ readyState }) => readyState !== 3)).toEqual([next])
})

// Each tab's claim is answered for itself, whatever its leader and the other tabs do meanwhile.

import { describe, expect, test, vi } from 'vitest'
import { FakeChannel, type FakeTab, alive, asked, following, freeze, installBrowser, leading, locks, newTab, rest } from './browser.js'
import { FakeSocket, again, hear, installFakes, live, pass, progress, resumed, subscribed } from './fakes.js'

installFakes()
installBrowser()

const unsubscribed = { action: 'unsubscribed', upload_id: 'u' }

// five returns the socket of a tab that leads and follows u, after five messages.
async function five() {
  const { tab, seen, socket } = await leading('u')
  socket.says(...[1, 2, 3, 4, 5].map((offset) => progress(offset)))
  await rest()
  return { tab, seen, socket }
}

test.each(['the tab that leads', 'another tab'])('an upload that another one takes the place of in %s is released first', async (where) => {
  const { tab, socket } = await leading()
  const { client } = where === 'another tab' ? newTab() : tab
  const { stop } = hear(client)
  await rest()
  expect(asked(socket)).toEqual(['u'])
  const post = vi.spyOn(FakeChannel.prototype, 'postMessage')
  stop()
  hear(client, 'v')
  await rest()
  expect(asked(socket)).toEqual(['not u', 'v']) // the server may allow no second one
  // Each message is a task of its own to the tab that leads.
  const posted = post.mock.calls.map(([{ kind }]) => kind).filter((kind) => /follow/.test(kind))
  expect(posted).toEqual(where === 'another tab' ? ['unfollow', 'follow'] : [])
})

describe('a tab that begins gets the newest message', () => {
  test('of a leader that continued without loss and has not received it', async () => {
    const { tab, socket } = await leading()
    const second = await following(socket)
    tab.client.close()
    const next = await live()
    await rest()
    expect(asked(next)).toEqual(['u since 1'])
    next.says(resumed(1))
    await rest()
    const third = hear(newTab().client, 'u')
    await rest()
    expect(asked(next)).toEqual(['not u', 'u since 0'])
    next.says(unsubscribed, resumed(1), progress(1))
    await rest()
    const fourth = hear(newTab().client, 'u')
    await rest()
    next.says(progress(2))
    await rest()
    expect([second.seen, third.seen, fourth.seen]).toEqual([[1, 2], [1, 2], [1, 2]])
    expect(asked(next)).toEqual([])
  })

  test('while the leader reconnects', async () => {
    const { tab, socket } = await five()
    socket.ends(1012)
    await rest()
    const late = newTab()
    const { seen } = hear(late.client, 'u')
    await rest()
    const next = await again(tab.client)
    await rest()
    expect(asked(next)).toEqual(['u since 5'])
    next.says(resumed(5))
    await rest()
    expect([late.client.status('u').state, seen]).toEqual(['live', [5]])
  })

  test('after the missed ones that the leader receives first', async () => {
    const { tab, seen, socket } = await five()
    socket.ends(1012)
    await rest()
    const late = hear(newTab().client, 'u')
    const next = await again(tab.client)
    await rest()
    next.says(resumed(7), progress(6))
    await rest()
    expect(late.seen).toEqual([])
    next.says(progress(7))
    await rest()
    expect([seen, late.seen]).toEqual([[1, 2, 3, 4, 5, 6, 7], [7]])
  })

  test('unless there is none', async () => {
    const { socket } = await leading('u')
    const { client } = newTab()
    hear(client, 'u')
    await rest()
    expect([client.status('u').state, asked(socket)]).toEqual(['live', []])
  })

  test('as a second follow where the first one has continued', async () => {
    const { client } = newTab()
    await rest()
    const first = hear(client, 'u', { epoch: 'e', offset: 3 })
    const socket = await live()
    await rest()
    socket.says(resumed(3))
    await rest()
    const second = hear(client, 'u')
    await rest()
    expect(asked(socket)).toEqual(['u since 3', 'not u', 'u since 2'])
    socket.says(unsubscribed, resumed(3), progress(3), progress(4))
    await rest()
    expect([first.seen, second.seen]).toEqual([[4], [3, 4]])
  })
})

describe('a position of its own', () => {
  test('of a second follow is not lost by a message that is under way', async () => {
    const { socket } = await leading()
    const { tab: { client }, seen } = await following(socket)
    socket.says(...[2, 3, 4, 5].map((offset) => progress(offset)))
    await rest()
    const second = hear(client, 'u', { epoch: 'e', offset: 2 })
    socket.says(progress(6))
    await rest()
    socket.says(unsubscribed, resumed(6), progress(3), progress(4), progress(5), progress(6), progress(7))
    await rest()
    expect([seen, second.seen]).toEqual([[1, 2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7]])
  })

  test('of a second follow is not served by an answer to the first one', async () => {
    const { tab, socket } = await leading()
    const { tab: { client }, seen } = await following(socket)
    socket.says(...[2, 3, 4, 5].map((offset) => progress(offset)))
    socket.ends(1012)
    await rest()
    const next = await again(tab.client)
    await rest()
    const second = hear(client, 'u', { epoch: 'e', offset: 2 })
    next.says(resumed(5), progress(6))
    await rest()
    next.says(unsubscribed, resumed(6), progress(3), progress(4), progress(5), progress(6))
    await rest()
    expect([seen, second.seen]).toEqual([[1, 2, 3, 4, 5, 6], [3, 4, 5, 6]])
  })

  test('is not served by an answer to a claim of others', async () => {
    const { tab, socket } = await five()
    socket.ends(1012)
    await rest()
    const next = await again(tab.client)
    await rest()
    expect(asked(next)).toEqual(['u since 5'])
    let late!: FakeTab
    const go = locks.delaying(() => { late = newTab() })
    const { seen } = hear(late.client, 'u', { epoch: 'e', offset: 2 })
    await rest()
    next.says(resumed(5), progress(6))
    await rest()
    go()
    await rest()
    expect(asked(next)).toEqual(['not u', 'u since 2'])
    next.says(unsubscribed, resumed(6), progress(3), progress(4), progress(5), progress(6))
    await rest()
    expect(seen).toEqual([3, 4, 5, 6])
  })

  test('that is ahead of the leader is no reason to repeat messages', async () => {
    const { seen, socket } = await five()
    const late = newTab()
    const ahead = hear(late.client, 'u')
    await rest()
    const behind = hear(newTab().client, 'u', { epoch: 'e', offset: 2 })
    await rest()
    expect(asked(socket)).toEqual(['not u', 'u since 2'])
    socket.says(unsubscribed, resumed(5), progress(3))
    await rest()
    late.away()
    await rest()
    late.back()
    await rest()
    expect(late.client.status('u').state).toBe('live')
    socket.says(progress(4), progress(5), progress(6))
    await rest()
    expect([seen, ahead.seen, behind.seen]).toEqual([[1, 2, 3, 4, 5, 6], [5, 6], [3, 4, 5, 6]])
  })

  test('that the server cannot continue from is no loss to the others', async () => {
    const { seen, socket } = await five()
    const late = hear(newTab().client, 'u', { epoch: 'e', offset: 2 })
    await rest()
    expect(asked(socket)).toEqual(['not u', 'u since 2'])
    socket.says(unsubscribed, resumed(7, false), progress(7)) // 6 was sent between the two claims
    await rest()
    expect(asked(socket)).toEqual(['not u', 'u since 5'])
    socket.says(unsubscribed, resumed(7), progress(6), progress(7))
    await rest()
    expect([seen, late.seen]).toEqual([[1, 2, 3, 4, 5, 6, 7], ['history', 7]])
  })

  test('that never was is answered with the newest message', async () => {
    const { socket } = await five()
    const late = hear(newTab().client, 'u', { epoch: 'e', offset: 99 })
    await rest()
    expect(asked(socket)).toEqual(['not u', 'u since 5'])
    socket.says(unsubscribed, resumed(5))
    await rest()
    expect([late.seen, asked(socket)]).toEqual([['history', 5], []])
  })
})

test('messages of a leader that has lost its lock are ignored', async () => {
  const { socket } = await leading('u')
  const second = newTab()
  const third = newTab()
  const follows = [hear(second.client, 'u'), hear(third.client, 'u')]
  await rest()
  socket.says(progress(1))
  await rest()
  const { robbed, thaw } = freeze()
  second.back()
  await pass(5000)
  const next = await live()
  await rest()
  next.says(resumed(1))
  await rest()
  socket.ends(1001) // whose end comes before what its tab has not heard
  await rest()
  expect(third.client.status()).toMatchObject({ state: 'live' })
  thaw()
  robbed()
  await rest()
  next.says(progress(2))
  await alive(next, 60)
  expect(follows.map(({ seen }) => seen)).toEqual([[1, 2], [1, 2]])
  expect(third.client.status('u').state).toBe('live')
})

describe('the application ends within a callback in the tab that leads', () => {
  // served returns a client that leads while another tab has received a message.
  async function served() {
    const { tab, socket } = await leading()
    await following(socket)
    return { client: tab.client, socket }
  }

  test('the follow', async () => {
    const { client, socket } = await served()
    const seen: unknown[] = []
    const stop = client.follow('u', (m: any) => {
      seen.push(m.offset)
      stop()
    })
    await rest()
    socket.says(progress(2))
    await rest()
    expect(seen).toEqual([1])
  })

  test('the follow, by its signal', async () => {
    const { client, socket } = await served()
    const seen: unknown[] = []
    const abort = new AbortController()
    client.follow('u', (m: any) => {
      seen.push(m.offset)
      abort.abort()
    }, { signal: abort.signal })
    await rest()
    socket.says(progress(2))
    await rest()
    expect(seen).toEqual([1])
  })

  test('the client', async () => {
    const { client, socket } = await served()
    client.follow('u', () => client.close())
    await rest()
    expect([client.status(), socket.closedWith]).toEqual([{ state: 'closed' }, 1000])
  })
})

test.each(['a listener', 'token()'])('close in %s when a tab takes the lead leaves nothing behind', async (where) => {
  const { tab, socket } = await leading()
  const second = newTab(where === 'token()' ? { token: () => { second.client.close(); return 'token' } } : {})
  await rest()
  if (where === 'a listener') second.client.subscribe(() => second.client.status().state === 'connecting' && second.client.close())
  tab.client.close()
  await rest()
  expect(second.client.status()).toEqual({ state: 'closed' })
  expect(FakeSocket.all.filter(({ closedWith }) => closedWith === undefined)).toEqual([])
  expect([socket.closedWith, locks.held.size]).toEqual([1000, 0])
})

describe('a connection that has stopped for good stays so', () => {
  test('when the tab that leads is closed, until reconnect in another tab', async () => {
    const { tab, socket } = await leading()
    const { client } = newTab()
    await rest()
    socket.ends(1008)
    await rest()
    tab.client.close()
    await rest()
    const third = newTab()
    await rest()
    const states = () => [client, third.client].map((c) => c.status().state)
    expect([states(), FakeSocket.all.length]).toEqual([['stopped', 'stopped'], 1])
    const { seen } = hear(third.client, 'u')
    await rest()
    third.client.reconnect()
    await rest()
    const next = await live()
    await rest()
    next.says(subscribed(1), progress(1))
    await rest()
    expect([states(), seen]).toEqual([['live', 'live'], [1]])
  })

  test('through the back/forward cache', async () => {
    const { tab, socket } = await leading()
    socket.ends(1008)
    await rest()
    tab.away()
    await rest()
    expect(tab.client.status().state).toBe('stopped')
    tab.back()
    await rest()
    expect([tab.client.status().state, FakeSocket.all.length]).toEqual(['stopped', 1])
    tab.client.reconnect()
    await live()
    await rest()
    expect(tab.client.status().state).toBe('live')
  })
})

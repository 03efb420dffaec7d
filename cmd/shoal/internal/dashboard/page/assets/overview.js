import { Table, h, panel, text, widePanel } from './dom.js'
import { bytes, count, duration, exact, micros, plural, rate } from './format.js'
import { Bars, Spark } from './spark.js'

// tile is a headline number with the line of its last minutes.
class Tile {
  #value = h('p', { class: 'value' }, '–')
  #note = h('p', { class: 'note' }, ' ')
  #spark = new Spark()

  constructor(title) {
    this.element = h('section', { class: 'tile', 'aria-label': title },
      h('h2', {}, title), this.#value, this.#note, this.#spark.element)
  }

  show(value, note, point) {
    text(this.#value, value)
    text(this.#note, note)
    this.#spark.add(point)
  }
}

// Facts is a list of names and values.
class Facts {
  #values = new Map()
  element = h('dl', { class: 'facts' })

  // show shows the entries; one whose second part is true is marked as bad.
  show(entries) {
    for (const [name, value, bad] of entries) {
      let dd = this.#values.get(name)
      if (!dd) {
        dd = h('dd')
        this.#values.set(name, dd)
        this.element.append(h('div', {}, h('dt', {}, name), dd))
      }
      text(dd, value)
      dd.classList.toggle('bad', Boolean(bad))
    }
  }
}

// SHARD_SIZES are the sizes of the registry that are compared between its shards.
const SHARD_SIZES = ['connections', 'users', 'uploads', 'subscriptions']

// Overview shows the numbers of this server and of its fellow nodes.
export class Overview {
  #open = new Tile('Connections')
  #in = new Tile('Messages in')
  #out = new Tile('Deliveries out')
  #residence = new Tile('Publish to write')
  #slowest = new Table('Slowest connections',
    ['User', '#Waiting', '#Messages', '#Bytes', '#Age', 'Transport', 'Address'], 'No connection is waiting.')
  #closings = new Table('Closings', ['Code', 'Reason', '#Since start', '#Since opened'], 'No connection has ended yet.')
  #nodes = new Table('Nodes', ['Node', 'State', '#Connections', '#Users', '#Uploads', '#Published'],
    'No node has answered yet.')
  #health = new Facts()
  #broker = new Facts()
  #memory = new Facts()
  #refusals = new Facts()
  #latency = new Facts()
  #shards = new Map(SHARD_SIZES.map((name) => [name, { bars: new Bars(), note: h('span', { class: 'soft' }) }]))
  #first // closings when the page began to look

  constructor() {
    const shards = [...this.#shards].map(([name, { bars, note }]) =>
      h('div', { class: 'shard' }, h('h3', {}, name[0].toUpperCase() + name.slice(1)), note, bars.element))
    this.element = h('div', { class: 'overview' },
      h('h1', { class: 'unseen' }, 'Overview'),
      h('div', { class: 'tiles' }, this.#open.element, this.#in.element, this.#out.element, this.#residence.element),
      h('div', { class: 'panels' },
        panel('Health', this.#health.element),
        panel('Publish to write, last 10 s', this.#latency.element),
        widePanel('Slowest connections', this.#slowest.element),
        panel('Closings', this.#closings.element),
        panel('Refusals since start', this.#refusals.element),
        widePanel('Nodes', this.#nodes.element),
        panel('Broker', this.#broker.element),
        panel('Memory and histories', this.#memory.element),
        widePanel('Balance of shards', h('div', { class: 'shards' }, shards))))
  }

  close() {}

  // access notes whether the page may show users and addresses.
  access({ reads }) {
    if (!reads) this.#slowest.show([])
    this.#slowest.say(reads ? 'No connection is waiting.' : 'Enter an API key to see users and addresses.')
  }

  connections({ list }) {
    this.#slowest.show(list.map((c) => [
      c.user ? { kind: 'user', id: c.user } : 'not yet known', duration(c.waiting), exact(c.messages),
      bytes(c.bytes), duration(c.age), transport(c), c.remote,
    ]))
  }

  numbers(n) {
    const { stats, rates, residence } = n
    const limit = n.connection_limit > 0 ? ` · limit ${count(n.connection_limit)}` : ''
    this.#open.show(count(stats.open), `${plural(stats.users, 'user')}${limit}`, stats.open)
    const incoming = rates && rates.published + rates.received
    this.#in.show(rates ? `${rate(incoming)}/s` : '–', `${count(stats.published)} published here since start`, incoming)
    this.#out.show(rates ? `${rate(rates.deliveries)}/s` : '–',
      rates ? `${bytes(rates.bytes)}/s · ${rate(rates.writes)} writes/s` : '', rates && rates.deliveries)
    this.#residence.show(residence ? micros(residence.p99) : '–', residence ? '99th percentile' : 'nothing written',
      residence ? residence.p99 : null)
    this.#showLatency(residence)
    this.#showHealth(n)
    this.#showClosings(n.closings)
    this.#showBroker(n)
    this.#showMemory(n)
    this.#showRefusals(stats)
    for (const [name, { bars, note }] of this.#shards) {
      bars.show(n.shards[name])
      text(note, balance(n.shards[name]))
    }
  }

  #showLatency(residence) {
    const value = (n) => (residence ? micros(n) : '–')
    this.#latency.show([
      ['Half within', value(residence?.p50)], ['9 of 10 within', value(residence?.p90)],
      ['99 of 100 within', value(residence?.p99)], ['Longest', value(residence?.max)],
      ['Sampled writes', residence ? count(residence.count) : '0'],
    ])
  }

  #showHealth({ not_ready: notReady, stats, rates }) {
    this.#health.show([
      ['Ready', notReady || 'yes', notReady],
      ['Stalled connections', exact(stats.stalled), stats.stalled > 0],
      ['Dropped deliveries', rates ? `${rate(rates.dropped)}/s` : '–', rates?.dropped > 0],
      ['Conflated states', rates ? `${rate(rates.conflated)}/s` : '–'],
      ['Slow consumers closed', exact(stats.slow_consumers)],
      ['Panics', exact(stats.panics + stats.connection_panics), stats.panics + stats.connection_panics > 0],
    ])
  }

  #showClosings(closings) {
    const now = new Map(closings.map((c) => [`${c.code} ${c.reason}`, c.count]))
    this.#first ??= now
    // Lower counts are those of a server that was started again: all of them are newer than the page.
    if ([...this.#first].some(([key, n]) => (now.get(key) ?? 0) < n)) this.#first = new Map()
    const rows = [...closings].sort((a, b) => b.count - a.count)
    this.#closings.show(rows.map((c) => {
      const seen = c.count - (this.#first.get(`${c.code} ${c.reason}`) ?? 0)
      return [c.code === 0 ? '–' : c.code, REASONS[c.reason] ?? c.reason, exact(c.count), seen > 0 ? `+${exact(seen)}` : '']
    }))
  }

  #showBroker({ stats: { broker }, nodes, more_nodes: more, missing_nodes: missing }) {
    this.#nodes.show((nodes ?? []).map((node) => [
      node.name || 'this node', node.healthy ? 'healthy' : 'broker unhealthy',
      exact(node.connections), exact(node.users), exact(node.uploads), count(node.published),
    ]).concat((missing ?? []).map((name) => [name, 'does not answer', '–', '–', '–', '–']))
      .concat(more > 0 ? [[`and ${exact(more)} more`, '', '', '', '', '']] : []))
    if (!broker) {
      this.#broker.show([['State', 'this node is alone: no broker']])
      return
    }
    const failures = broker.publish_failures + broker.subscribe_failures + broker.read_failures
    this.#broker.show([
      ['State', broker.healthy ? 'healthy' : 'unhealthy', !broker.healthy],
      ['Known nodes', exact(broker.nodes)],
      ['Waiting messages', exact(broker.waiting)],
      ['Catching up', plural(broker.catching_up, 'upload')],
      ['Failed calls', exact(failures)],
      ['Catch-ups', exact(broker.recoveries)],
      ['New epochs', exact(broker.resets)],
      ['Lost nodes', exact(broker.nodes_lost)],
    ])
  }

  #showMemory({ stats, history_limit: limit, heap_bytes: heap, goroutines }) {
    const used = limit > 0 ? ` of ${bytes(limit)}` : ''
    this.#memory.show([
      ['Histories', `${bytes(stats.history_bytes)}${used}`, limit > 0 && stats.history_bytes > 0.7 * limit],
      ['Stored messages', `${count(stats.history_messages)} of ${plural(stats.history_uploads, 'upload')}`],
      ['Evicted uploads', exact(stats.history_evicted)],
      ['Uploads known', count(stats.uploads)],
      ['Subscriptions', count(stats.subscriptions)],
      ['Heap', bytes(heap)],
      ['Goroutines', count(goroutines)],
    ])
  }

  #showRefusals(stats) {
    const by = stats.refused_by_cause
    this.#refusals.show([
      ['Origin not allowed', exact(by.origin)], ['Bad handshake', exact(by.handshake)],
      ['Full', exact(by.full + by.sockets)], ['Per address or rate', exact(by.per_ip + by.rate)],
      ['Draining', exact(by.draining)], ['Tokens refused', exact(stats.unauthenticated + by.identity)],
      ['Uploads forbidden', exact(stats.forbidden)], ['Hooks failed', exact(stats.auth_unavailable)],
    ])
  }
}

// REASONS are the reasons of closings that are no texts of the protocol.
const REASONS = { client: 'left by itself', normal: 'Normal closure', other: 'of the application' }

export function transport(c) {
  return c.subprotocol || c.transport
}

// balance compares the fullest shard with the mean.
function balance(values) {
  const sum = values.reduce((a, b) => a + b, 0)
  if (sum === 0) return 'none'
  const most = Math.max(...values)
  return `${count(sum)} in ${values.length} shards, at most ${count(most)} in one`
}

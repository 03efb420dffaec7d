import { Poll, List, explain, heading } from './detail.js'
import { Table, h, link, panel, text, widePanel } from './dom.js'
import { bytes, duration, exact, plural } from './format.js'
import { transport } from './overview.js'

// User shows the connections and uploads of a user on this node, and disconnects the user.
export class User {
  #id
  #access
  #poll
  #facts = h('p', { class: 'soft lead' }, 'Looking…')
  #problem = h('p', { class: 'problem', role: 'alert' })
  #connections = new Table('Connections', ['Address', 'Transport', '#Age', '#Silent', '#Messages', '#Bytes', '#Waiting'],
    'No connection to this node.')
  #uploads = new List('Follows no upload on this node.')
  #disconnect = h('button', { type: 'button', class: 'danger' }, 'Disconnect')
  #sure = h('div', { class: 'actions', hidden: true })
  #confirm = h('button', { type: 'button', class: 'danger' }, 'Close all connections')
  #readOnly = h('p', { class: 'soft' })
  #outcome = h('p', { class: 'outcome', role: 'status' })

  constructor(id, access) {
    this.#id = id
    this.#access = access
    const cancel = h('button', { type: 'button', class: 'quiet', onclick: () => this.#ask(false) }, 'Cancel')
    this.#sure.append(this.#confirm, cancel)
    this.#disconnect.addEventListener('click', () => this.#ask(true))
    this.#confirm.addEventListener('click', () => this.#close())
    this.element = h('div', { class: 'detail' }, heading('User', id), this.#facts, this.#problem,
      h('div', { class: 'panels' },
        widePanel('Connections', this.#connections.element),
        panel('Uploads', this.#uploads.element),
        panel('Disconnect', this.#readOnly, h('div', { class: 'actions' }, this.#disconnect), this.#sure, this.#outcome)))
    this.access(access)
    this.#poll = new Poll(() => this.#look(), this.#problem)
  }

  close() {
    this.#poll.close()
  }

  access({ acts }) {
    this.#disconnect.disabled = !acts
    if (!acts) this.#sure.hidden = true
    text(this.#readOnly, acts
      ? 'Closes all connections of the user on all nodes with code 1000: clients of Shoal do not come back by themselves.'
      : 'Read-only: enter an API key to disconnect.')
    this.#poll?.now()
  }

  async #look() {
    const found = await this.#access.request('GET', `data/user?id=${encodeURIComponent(this.#id)}`)
    text(this.#facts, [
      `${plural(found.connection_count, 'connection')} to this node`, plural(found.upload_count, 'followed upload'),
    ].join(' · '))
    this.#connections.show(found.connections.map((c) => [
      c.remote, transport(c), duration(c.age), duration(c.silent), exact(c.messages), bytes(c.bytes),
      duration(c.waiting),
    ]))
    this.#uploads.show(found.uploads.map((upload) => link('upload', upload)), found.upload_count)
  }

  // ask shows the question whether the user is really to be disconnected, or takes it back.
  #ask(open) {
    this.#sure.hidden = !open
    this.#disconnect.hidden = open
    ;(open ? this.#confirm : this.#disconnect).focus()
  }

  async #close() {
    try {
      const { closed } = await this.#access.request('DELETE', `data/user?id=${encodeURIComponent(this.#id)}`)
      this.#tell(`Closed ${plural(closed, 'connection')} on this node.`, 'good')
    } catch (error) {
      this.#tell(explain(error), 'bad')
    }
    this.#ask(false)
    await this.#poll.now()
  }

  #tell(outcome, kind) {
    this.#outcome.dataset.kind = kind
    this.#outcome.textContent = outcome
  }
}

import { Poll, List, explain, heading } from './detail.js'
import { h, link, panel, text, widePanel } from './dom.js'
import { bytes, exact, plural } from './format.js'

// templates are messages to begin with.
const templates = {
  progress: (id) => ({
    action: 'upload_progress',
    payload: { upload_id: id, status: 'working', stage: 'checking', progress_percent: 50, message: 'Published by hand' },
  }),
  completed: (id) => ({ action: 'upload_completed', upload_id: id, description: 'Published by hand', audit_score: 1 }),
  failed: (id) => ({ action: 'upload_failed', upload_id: id, error_message: 'Published by hand' }),
}

// Upload shows who follows an upload and its stored messages, and publishes to it.
export class Upload {
  #id
  #access
  #poll
  #facts = h('p', { class: 'soft lead' }, 'Looking…')
  #problem = h('p', { class: 'problem', role: 'alert' })
  #followers = new List('Nobody follows it now.')
  #history = h('ol', { class: 'history' })
  #empty = h('p', { class: 'empty', hidden: true }, 'No message is stored.')
  #shown = ''
  #sending = false
  #kind = h('select', { id: 'publish-kind' }, Object.keys(templates).map((name) => h('option', { value: name }, name)))
  #message = h('textarea', { id: 'publish-message', rows: 11, spellcheck: 'false', autocapitalize: 'off' })
  #publish = h('button', { type: 'submit' }, 'Publish')
  #outcome = h('p', { class: 'outcome', role: 'status' })
  #readOnly = h('p', { class: 'soft', id: 'publish-hint' })

  constructor(id, access) {
    this.#id = id
    this.#access = access
    const form = h('form', { class: 'form' },
      h('label', { for: 'publish-kind' }, 'Begin with'), this.#kind,
      h('label', { for: 'publish-message' }, 'Message (JSON)'), this.#message,
      this.#readOnly, h('div', { class: 'actions' }, this.#publish), this.#outcome)
    form.addEventListener('submit', (event) => this.#send(event))
    this.#kind.addEventListener('change', () => this.#begin())
    this.#begin()
    this.element = h('div', { class: 'detail' }, heading('Upload', id), this.#facts, this.#problem,
      h('div', { class: 'panels' },
        panel('Followers', this.#followers.element),
        panel('Publish by hand', form),
        widePanel('History, newest first', this.#empty, this.#history)))
    this.access(access)
    this.#poll = new Poll(() => this.#look(), this.#problem)
  }

  close() {
    this.#poll.close()
  }

  access({ acts }) {
    this.#publish.disabled = !acts
    text(this.#readOnly, acts ? 'Goes to every follower on all nodes.' : 'Read-only: enter an API key to publish.')
    this.#poll?.now()
  }

  #begin() {
    this.#message.value = JSON.stringify(templates[this.#kind.value](this.#id), null, 2)
  }

  async #look() {
    const found = await this.#access.request('GET', `data/upload?id=${encodeURIComponent(this.#id)}`)
    const missing = found.missing_nodes?.length ?? 0
    text(this.#facts, [
      plural(found.count, 'follower'), `${exact(found.here)} on this node`,
      plural(found.stored, 'stored message'), `offset ${exact(found.offset)}`,
      ...(missing > 0 ? [`${plural(missing, 'node')} did not answer`] : []),
    ].join(' · '))
    this.#followers.show(found.followers.map((user) => link('user', user)), found.count)
    this.#showHistory(found)
  }

  // showHistory renders the list again only if it has changed. The same offsets of another epoch are other messages.
  #showHistory({ epoch, messages }) {
    this.#empty.hidden = messages.length > 0
    const shown = [epoch, ...messages.map((m) => m.offset)].join()
    if (shown === this.#shown) return
    this.#shown = shown
    this.#history.replaceChildren(...messages.map((m) => h('li', {},
      h('p', { class: 'soft' }, `offset ${exact(m.offset)} · ${bytes(m.bytes)}`),
      h('pre', {}, m.text + (m.bytes > new TextEncoder().encode(m.text).length ? ' …' : '')))))
  }

  async #send(event) {
    event.preventDefault()
    if (this.#sending) return // a second click must not publish twice
    this.#sending = true
    this.#tell('Publishing…', 'good')
    try {
      const message = this.#message.value
      JSON.parse(message) // checked here, and sent as it is: numbers may be larger than JavaScript's
      await this.#access.request('POST', `data/upload?id=${encodeURIComponent(this.#id)}`, message)
      this.#tell('Published.', 'good')
      this.#poll.now()
    } catch (error) {
      this.#tell(error instanceof SyntaxError ? `Not JSON: ${error.message}` : explain(error), 'bad')
    }
    this.#sending = false
  }

  #tell(outcome, kind) {
    this.#outcome.dataset.kind = kind
    this.#outcome.textContent = outcome
  }
}

// One upload on the page. A card shows what it is told; it asks nobody.

// titleOf makes a title of a stage, which is a word of the publisher's own, such as "making-thumbnail".
function titleOf(stage) {
  const words = stage.replaceAll(/[_.-]+/g, ' ').trim()
  return words ? words[0].toUpperCase() + words.slice(1) : stage
}

export class Card {
  #parts = {}
  #percent // undefined: none was reported
  #headline = ''

  // onRetry, onLink and onRemove are called when the person asks for it; announce(text) speaks to those who
  // listen to the page.
  constructor({ id, name }, { onRetry, onLink, onRemove, announce }) {
    this.element = document.getElementById('card').content.cloneNode(true).firstElementChild
    for (const part of ['kind', 'name', 'percent', 'bar', 'fill', 'stage', 'message', 'facts', 'retry', 'link', 'remove']) {
      this.#parts[part] = this.element.querySelector(`.${part}`)
    }
    this.#parts.image = this.element.querySelector('img')
    this.announce = announce
    this.element.dataset.upload = id
    this.#parts.retry.addEventListener('click', onRetry)
    this.#parts.link.addEventListener('click', onLink)
    this.#parts.remove.addEventListener('click', onRemove)
    this.rename(name)
    this.waiting('Waiting for the first message')
  }

  get state() {
    return this.element.dataset.state
  }

  rename(name) {
    const { name: title, bar, kind, retry, link, remove } = this.#parts
    this.name = name
    title.textContent = title.title = name
    kind.textContent = /\.(\w{1,4})$/.exec(name)?.[1].toUpperCase() ?? 'ID'
    bar.setAttribute('aria-label', `Progress of ${name}`)
    retry.setAttribute('aria-label', `Retry ${name}`)
    link.setAttribute('aria-label', `Copy link to ${name}`)
    remove.setAttribute('aria-label', `Remove ${name} from this page`)
  }

  // waiting: nothing is known yet, or no longer.
  waiting(message) {
    this.#percent = undefined
    this.#become('waiting', 'Waiting', message)
  }

  progress({ status, stage, progress_percent: percent, message, error_message: problem, description_audit_score: score }) {
    this.#percent = percent
    const state = { completed: 'completed', failed: 'failed' }[status] ?? 'working'
    this.#become(state, titleOf(stage), problem ?? message)
    this.facts(score == null ? [] : [['Score', `${score} of 100`]])
  }

  completed({ description, audit_score: score }) {
    this.#percent = 100
    this.#become('completed', 'Completed', description)
    this.facts([['Score', `${score} of 100`]])
  }

  failed(message) {
    this.#become('failed', 'Failed', message)
  }

  interrupted(message) {
    this.#become('interrupted', 'Interrupted', message)
  }

  // found shows what the development server found out about a file, in the place of its description.
  found({ name, type, width, height, size, sha256, remark }) {
    if (this.name === this.element.dataset.upload) this.rename(name) // nobody had a better one
    this.#parts.message.textContent = ''
    this.facts([
      ['Type', type],
      ['Dimensions', width && `${width} × ${height} pixels`],
      ['Size', `${size.toLocaleString('en')} bytes`],
      ['Remark', remark],
      ['SHA-256', sha256, 'hash'],
    ])
  }

  picture(address) {
    this.#parts.image.src = address
    this.#parts.image.hidden = false
    this.#parts.kind.hidden = true
  }

  // other shows a message whose action is not one of the protocol's. It begins nothing that has ended.
  other(message) {
    const state = this.state === 'completed' || this.state === 'failed' ? this.state : 'working'
    this.#become(state, message.action, typeof message.message === 'string' ? message.message : '')
  }

  offerRetry(label) {
    this.#parts.retry.textContent = label
    this.#parts.retry.hidden = !label
  }

  facts(rows) {
    const { facts } = this.#parts
    facts.replaceChildren(...rows.filter(([, value]) => value).flatMap(([label, value, kind]) => {
      const term = document.createElement('dt')
      const detail = document.createElement('dd')
      term.textContent = label
      detail.textContent = value
      if (kind) detail.className = kind
      return [term, detail]
    }))
    facts.hidden = !facts.hasChildNodes()
  }

  #become(state, headline, message) {
    const { percent, bar, fill, stage, message: text } = this.#parts
    const changed = state !== this.state
    this.element.dataset.state = state
    const known = this.#percent !== undefined
    const whole = Math.floor(this.#percent ?? 0)
    stage.textContent = headline
    text.textContent = message
    percent.textContent = known ? `${whole} %` : ''
    fill.style.transform = `translateX(${(this.#percent ?? 0) - 100}%)`
    bar.setAttribute('aria-valuenow', whole)
    bar.setAttribute('aria-valuetext', known ? `${whole} percent, ${headline}` : headline)
    if (changed) this.offerRetry('')
    if (changed && state !== 'working') this.facts([])
    // A change of stage is worth a word, a percent is not.
    if (state !== 'waiting' && this.#headline !== headline) this.announce(`${this.name}: ${headline}. ${message}`)
    this.#headline = headline
  }
}

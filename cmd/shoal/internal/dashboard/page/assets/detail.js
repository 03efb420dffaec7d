import { h, text } from './dom.js'
import { exact } from './format.js'

const PAUSE = 2000 // ms between two looks

// Poll calls look again and again while the page is seen, and shows why it fails.
export class Poll {
  #timer
  #closed = false
  #problem

  constructor(look, problem) {
    this.look = look
    this.#problem = problem
    this.now()
  }

  // now looks at once.
  async now() {
    clearTimeout(this.#timer)
    const mine = (this.turn = (this.turn ?? 0) + 1)
    try {
      if (!document.hidden) await this.look()
      text(this.#problem, '')
    } catch (error) {
      text(this.#problem, this.#closed ? '' : `${explain(error)}${error.status ? '' : ' Trying again.'}`)
    }
    if (!this.#closed && mine === this.turn) this.#timer = setTimeout(() => this.now(), PAUSE)
  }

  close() {
    this.#closed = true
    clearTimeout(this.#timer)
  }
}

// explain returns a sentence for an error of a request.
export function explain(error) {
  if (error.status === undefined) return 'The server cannot be reached.'
  const detail = error.message
  return `${detail[0].toUpperCase()}${detail.slice(1)}${/[.!?]$/.test(detail) ? '' : '.'}`
}

// heading is the title of a page about an upload or a user.
export function heading(kind, id) {
  return h('div', { class: 'heading' },
    h('p', {}, h('a', { href: '#/' }, '← Overview')),
    h('h1', {}, h('span', { class: 'soft' }, `${kind} `), h('span', { class: 'id' }, id)))
}

// List is a list of links, replaced only when it has changed.
export class List {
  #shown = ''
  #list = h('ul', { class: 'ids' })
  #more = h('p', { class: 'soft' })

  constructor(empty) {
    this.empty = empty
    this.element = h('div', {}, this.#list, this.#more)
  }

  // show shows links, of which there may be more than are given.
  show(links, total) {
    const beyond = total - links.length
    text(this.#more, total === 0 ? this.empty : beyond > 0 ? `and ${exact(beyond)} more` : '')
    const shown = links.map((a) => a.textContent).join('\n')
    if (shown === this.#shown) return
    this.#shown = shown
    this.#list.replaceChildren(...links.map((a) => h('li', {}, a)))
  }
}

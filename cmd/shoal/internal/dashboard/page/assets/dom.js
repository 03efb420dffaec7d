// dom.js makes elements. Text becomes text nodes only, so nothing that users have chosen is ever parsed as markup.

const SVG = 'http://www.w3.org/2000/svg'

// h returns an element with attributes and children; a child is an element, a text, or null for none.
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children)
}

// svg is h for the elements of a picture.
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children)
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? '' : value)
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined))
  return element
}

// text sets the text of an element if it differs, so that a selection survives.
export function text(element, value) {
  if (element.textContent !== String(value)) element.textContent = value
}

// link leads to the page of an upload or a user.
export function link(kind, id) {
  return h('a', { href: `#/${kind}/${encodeURIComponent(id)}`, class: 'id' }, id)
}

// panel is a titled section.
export function panel(title, ...content) {
  const id = `panel-${title.toLowerCase().replace(/[^a-z]+/g, '-')}`
  return h('section', { class: 'panel', 'aria-labelledby': id }, h('h2', { id }, title), ...content)
}

// widePanel is a panel as wide as the page.
export function widePanel(title, ...content) {
  const element = panel(title, ...content)
  element.classList.add('wide')
  return element
}

// Table is a table whose rows are replaced only where they have changed, so that focus and selection survive.
export class Table {
  #body = h('tbody')
  #empty
  #table
  #shown = ''

  constructor(label, columns, empty) {
    const head = columns.map((name) => h('th', { scope: 'col', class: name.startsWith('#') ? 'number' : null },
      name.replace('#', '')))
    this.#empty = h('p', { class: 'empty' }, empty)
    this.#table = h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': label, hidden: true },
      h('table', {}, h('thead', {}, h('tr', {}, head)), this.#body))
    this.columns = columns
    this.element = h('div', {}, this.#empty, this.#table)
  }

  // show shows rows of cells: texts, or { kind, id } for a link.
  show(rows) {
    const shown = JSON.stringify(rows)
    if (shown === this.#shown) return
    this.#shown = shown
    this.#empty.hidden = rows.length > 0
    this.#table.hidden = rows.length === 0
    rows.forEach((cells, i) => {
      const row = this.#body.children[i] ?? this.#body.appendChild(h('tr'))
      cells.forEach((cell, k) => {
        const name = this.columns[k]
        const td = row.children[k] ?? row.appendChild(h('td', { class: name.startsWith('#') ? 'number' : null }))
        const key = JSON.stringify(cell)
        if (td.dataset.shown === key) return
        td.dataset.shown = key
        td.replaceChildren(typeof cell === 'object' ? link(cell.kind, cell.id) : String(cell))
      })
    })
    while (this.#body.children.length > rows.length) this.#body.lastChild.remove()
  }

  // say replaces the text that stands in place of an empty table.
  say(why) {
    text(this.#empty, why)
  }
}

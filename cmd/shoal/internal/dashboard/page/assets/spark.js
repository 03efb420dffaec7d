// spark.js draws the last minutes of a number.

import { svg } from './dom.js'

const POINTS = 180 // three minutes
const WIDTH = 240
const HEIGHT = 44
const ROOM = 3 // above and below the line

// Spark is a line of the last values, with the newest at the right. It is decoration: the number beside it is the text.
export class Spark {
  #line = svg('path', { class: 'spark-line' })
  #area = svg('path', { class: 'spark-area' })
  #values = []

  constructor() {
    this.element = svg('svg', {
      class: 'spark', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true',
    }, this.#area, this.#line)
  }

  // add adds a value; null leaves a gap.
  add(value) {
    this.#values.push(value)
    if (this.#values.length > POINTS) this.#values.shift()
    const { line, area } = paths(this.#values)
    this.#line.setAttribute('d', line)
    this.#area.setAttribute('d', area)
  }
}

// paths returns the line, and the same with the area below it.
function paths(values) {
  const top = Math.max(1e-9, ...values.filter((value) => value !== null))
  const x = (i) => WIDTH - (values.length - 1 - i) * (WIDTH / (POINTS - 1))
  const y = (value) => HEIGHT - ROOM - (value / top) * (HEIGHT - 2 * ROOM)
  let line = ''
  let area = ''
  let run = []
  const end = () => {
    if (run.length === 0) return
    const points = run.map((i) => `${x(i).toFixed(1)} ${y(values[i]).toFixed(1)}`)
    line += `M${points.join('L')}${run.length === 1 ? 'h.1' : ''}`
    area += `M${x(run[0]).toFixed(1)} ${HEIGHT}L${points.join('L')}L${x(run.at(-1)).toFixed(1)} ${HEIGHT}Z`
    run = []
  }
  values.forEach((value, i) => {
    if (value === null) end()
    else run.push(i)
  })
  end()
  return { line, area }
}

// Bars is a row of bars, one for each shard.
export class Bars {
  #shown = ''

  constructor() {
    this.element = svg('svg', { class: 'bars', preserveAspectRatio: 'none', 'aria-hidden': 'true' })
  }

  show(values) {
    const shown = values.join()
    if (shown === this.#shown) return
    this.#shown = shown
    const top = Math.max(1, ...values)
    this.element.setAttribute('viewBox', `0 0 ${values.length} ${HEIGHT}`)
    while (this.element.children.length > values.length) this.element.lastChild.remove()
    values.forEach((value, i) => {
      const bar = this.element.children[i] ?? this.element.appendChild(svg('rect', { x: i + 0.1, width: 0.8 }))
      const height = Math.max(value === 0 ? 1 : 2, (value / top) * HEIGHT)
      bar.setAttribute('height', height)
      bar.setAttribute('y', HEIGHT - height)
    })
  }
}

// format.js turns numbers into short texts.

const whole = new Intl.NumberFormat('en')
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })

// count is a number that need not be exact from a hundred thousand on.
export function count(n) {
  return n < 100_000 ? whole.format(n) : short.format(n)
}

export function exact(n) {
  return whole.format(n)
}

// plural is a number of things.
export function plural(n, thing) {
  return `${count(n)} ${thing}${n === 1 ? '' : 's'}`
}

// rate is a number of events per second.
export function rate(n) {
  if (n === 0 || n >= 10) return count(Math.round(n))
  return n.toFixed(1)
}

export function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024
    unit++
  }
  return `${n < 10 && unit > 0 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`
}

// micros is a duration in microseconds.
export function micros(n) {
  return n < 1000 ? `${n} µs` : duration(n / 1000)
}

// duration is one in milliseconds.
export function duration(ms) {
  if (ms < 10) return `${ms.toFixed(ms === 0 ? 0 : 1)} ms`
  if (ms < 1000) return `${Math.round(ms)} ms`
  const s = ms / 1000
  if (s < 10) return `${s.toFixed(1)} s`
  if (s < 120) return `${Math.round(s)} s`
  if (s < 7200) return `${Math.round(s / 60)} min`
  if (s < 48 * 3600) return `${Math.round(s / 3600)} h`
  return `${Math.round(s / 86400)} d`
}

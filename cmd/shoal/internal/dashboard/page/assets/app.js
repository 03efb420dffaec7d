import { Access } from './access.js'
import { explain } from './detail.js'
import { text } from './dom.js'
import { Overview } from './overview.js'
import { connect } from './shoal.js'
import { Upload } from './upload.js'
import { User } from './user.js'

const element = (id) => document.getElementById(id)
const STALE = 5000 // ms without numbers after which they are old

const access = new Access(() => showAccess())
const overview = new Overview()
let view // what main shows
let shoal // the stream
let stopConnections // ends the follow of the slowest connections
let lastNumbers // the last state
let lastAt // when it came
let lastTick // the same by the monotonic clock

// Stream

// open connects the stream, again when the page may see more or less than before.
function open() {
  shoal?.close()
  stopConnections = undefined
  shoal = connect(new URL('ws/uploads', document.baseURI), { token: () => access.token(), maxDelay: 5000 })
  shoal.subscribe(() => showConnection(shoal.status()))
  shoal.follow('numbers', (message) => message.action === 'dashboard.numbers' && showNumbers(message))
  followConnections()
}

// followConnections follows the slowest connections if the page may see them.
function followConnections() {
  if (!access.reads) {
    stopConnections?.()
    stopConnections = undefined
  } else if (shoal) {
    stopConnections ??= shoal.follow('connections',
      (message) => message.action === 'dashboard.connections' && overview.connections(message),
      { onError: () => { stopConnections = undefined } })
  }
}

function showNumbers(numbers) {
  lastNumbers = numbers
  lastAt = new Date()
  lastTick = performance.now()
  overview.numbers(numbers)
  text(element('node'), numbers.node)
  text(element('foot'), `Shoal ${numbers.version}`)
  tick()
}

let state = 'connecting'

function showConnection(status) {
  const changed = status.state !== state
  state = status.state
  element('connection').dataset.state = state
  element('reconnect').hidden = state !== 'waiting' && state !== 'stopped'
  tick()
  if (changed && state !== 'connecting') announce(element('connection-text').textContent)
}

// tick shows texts that depend on the time.
function tick() {
  const status = shoal.status()
  const old = performance.now() - lastTick > STALE
  text(element('connection-text'), connectionText(status))
  document.body.classList.toggle('stale', old || status.state !== 'live')
  const why = bannerText(status, old)
  text(element('banner'), why)
  element('banner').hidden = why === ''
}

function connectionText(status) {
  switch (status.state) {
    case 'live': return 'Live'
    case 'waiting': return `Reconnecting in ${Math.max(1, Math.ceil((status.retryAt - Date.now()) / 1000) || 1)} s`
    case 'stopped': return 'Stopped'
    default: return 'Connecting…'
  }
}

function bannerText(status, old) {
  const since = lastAt ? ` The numbers are of ${lastAt.toLocaleTimeString()}.` : ''
  if (status.state === 'waiting' || status.state === 'stopped') {
    return `No connection to the server${status.error ? `: ${status.error.message}` : ''}.${since}`
  }
  if (old) return `No numbers have come for some seconds.${since}`
  return lastNumbers?.not_ready ? `The server takes no new connections: ${lastNumbers.not_ready}.` : ''
}

// Pages

// show shows the page that the address names: #/, #/upload/ID or #/user/ID.
function show() {
  const [, kind, encoded] = location.hash.split('/')
  let id = ''
  try {
    id = decodeURIComponent(encoded ?? '')
  } catch {
    // Not written by this page: it gets the overview.
  }
  view?.close()
  if (kind === 'upload' && id) view = new Upload(id, access)
  else if (kind === 'user' && id) view = new User(id, access)
  else view = overview
  element('main').replaceChildren(view.element)
  document.title = view === overview ? 'Shoal dashboard' : `${kind} ${id} – Shoal dashboard`
  if (kind === 'upload' || kind === 'user') element('find-kind').value = kind
}

addEventListener('hashchange', () => {
  show()
  scrollTo(0, 0)
  element('main').focus({ preventScroll: true })
})

element('find').addEventListener('submit', (event) => {
  event.preventDefault()
  location.hash = `#/${element('find-kind').value}/${encodeURIComponent(element('find-id').value)}`
})

document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault() // the address names the page
  element('main').focus()
})

// Access

function showAccess() {
  element('key-button').dataset.state = access.acts ? 'acts' : 'none'
  text(element('key-button'), access.acts ? 'API key in use' : 'Read-only: enter key')
  overview.access(access)
  if (view !== overview) view?.access(access)
  followConnections()
}

async function useKey(key) {
  try {
    await access.use(key)
  } catch (error) {
    element('key-problem').textContent = explain(error)
    element('key').focus()
    return
  }
  element('key-dialog').close()
  announce(key ? 'The key is in use.' : 'The key is forgotten.')
  open()
}

element('key-button').addEventListener('click', () => {
  element('key').value = ''
  element('key-problem').textContent = ''
  element('key-forget').hidden = !access.hasKey
  element('key-dialog').showModal()
})
element('key-form').addEventListener('submit', (event) => {
  event.preventDefault()
  useKey(element('key').value)
})
element('key-forget').addEventListener('click', () => useKey(''))
element('key-cancel').addEventListener('click', () => element('key-dialog').close())
element('key-dialog').addEventListener('close', () => { element('key').value = '' })
element('reconnect').addEventListener('click', () => shoal.reconnect())

function announce(what) {
  element('announcer').textContent = what
}

showAccess()
show()
open()
setInterval(tick, 500)

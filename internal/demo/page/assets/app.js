import { Card } from './card.js'
import { Memory, idProblem, linkTo } from './memory.js'
import { connect } from './shoal.js'
import { curlLine, shoalLine } from './terminal.js'
import { Uploader } from './uploader.js'

const element = (id) => document.getElementById(id)
const maxBytes = Number(document.body.dataset.maxBytes)
const MAX_CARDS = 200
const FULL = `This page shows at most ${MAX_CARDS} uploads: remove some first.`
const cards = new Map()
const files = new Map() // what this tab can send again, by upload id
const unfollow = new Map() // what ends the follow of an upload, by its id
let connection = { state: 'connecting' }

const memory = new Memory({ onAdded: show })

const shoal = connect('/ws/uploads', { token: fetchToken })
shoal.subscribe(() => showConnection(shoal.status()))

const uploader = new Uploader({
  onBroken: (id) => cards.get(id)?.interrupted('The connection broke. The file will be sent again.'),
  onFailed: (id, reason, again) => {
    cards.get(id)?.failed(reason)
    if (again) cards.get(id)?.offerRetry('Retry')
  },
})

async function fetchToken() {
  const user = new URLSearchParams({ user: memory.user() })
  const answer = await fetch(`/dev/token?${user}`, { signal: AbortSignal.timeout(10_000), cache: 'no-store' })
  if (!answer.ok) throw new Error(`no token: ${answer.status}`)
  const { token, expires_at: expires } = await answer.json()
  return { token, expiresAt: expires && Date.parse(expires) }
}

// Uploads

// show puts an upload on the page, at the top, and follows it. It reports whether the page has room for it.
function show(upload) {
  const { id } = upload
  if (cards.has(id)) return true
  if (cards.size >= MAX_CARDS) return false
  const card = new Card(upload, {
    onRetry: () => retry(id),
    onLink: () => copy(linkTo(id), `Copied the link to ${card.name}.`),
    onRemove: () => remove(id),
    announce,
  })
  card.mine = upload.mine === true
  cards.set(id, card)
  element('uploads').prepend(card.element)
  element('empty').hidden = true
  follow(id)
  return true
}

function follow(id) {
  let state
  const end = shoal.subscribe(() => {
    const status = shoal.status(id)
    if (status.state === 'live' && state !== 'live') showAnswer(id, status)
    state = status.state
  }, id)
  const stop = shoal.follow(id, (message) => showMessage(id, message), {
    onError: (error) => cards.get(id)?.failed(`The server refused to let this page follow it: ${error.message}`),
  })
  unfollow.set(id, () => {
    end()
    stop()
  })
}

function remove(id) {
  const card = cards.get(id)
  const next = card.element.nextElementSibling ?? card.element.previousElementSibling
  files.delete(id)
  uploader.cancel(id)
  unfollow.get(id)()
  memory.remove(id)
  cards.delete(id)
  card.element.remove()
  element('empty').hidden = cards.size > 0
  announce(`Removed ${card.name}.`)
  const focus = next?.querySelector('.remove') ?? element('file') // the focused button is gone
  focus.focus()
}

function send(chosen) {
  const tooLarge = []
  let beyond = 0
  for (const file of chosen) {
    if (file.size > maxBytes) {
      tooLarge.push(file.name)
      continue
    }
    const upload = { id: crypto.randomUUID(), name: file.name || 'file', mine: true }
    if (!show(upload)) {
      beyond++
      continue
    }
    memory.add(upload)
    begin(upload.id, file)
  }
  element('file-problem').textContent = [
    tooLarge.length > 0 && `Too large: ${tooLarge.slice(0, 20).join(', ')}${tooLarge.length > 20 ? ', …' : ''}.`,
    beyond > 0 && `${beyond === 1 ? 'One file was' : `${beyond} files were`} not taken. ${FULL}`,
  ].filter(Boolean).join(' ')
}

function begin(id, file) {
  files.set(id, file)
  cards.get(id).waiting('Waiting to be sent')
  uploader.add(id, file)
}

// retry sends the file again. A tab that no longer holds it, or never did, asks for it.
function retry(id) {
  if (files.has(id)) return begin(id, files.get(id))
  const picker = Object.assign(document.createElement('input'), { type: 'file' })
  picker.addEventListener('change', () => cards.has(id) && begin(id, picker.files[0]))
  picker.click()
}

// showAnswer notices that the server no longer knows an upload that was under way.
function showAnswer(id, { newest, recovered }) {
  const card = cards.get(id)
  if (recovered || newest > 0 || uploader.has(id)) return
  const underWay = card.state === 'working' || card.state === 'interrupted' || (card.mine && card.state === 'waiting')
  if (!underWay) return
  card.interrupted(card.mine ? 'The server knows nothing of this upload any more.' : 'The server started anew.')
  if (card.mine) card.offerRetry('Retry')
}

function showMessage(id, message) {
  const card = cards.get(id)
  switch (message.action) {
    case 'upload_progress': return card.progress(message.payload)
    case 'upload_completed':
      files.delete(id)
      card.completed(message)
      return showResult(id, card)
    case 'upload_failed':
      card.failed(message.error_message)
      if (card.mine && !uploader.has(id)) card.offerRetry('Retry')
      return
    case 'shoal.gap': return // the newest message follows, and the page shows no other
    default: card.other(message)
  }
}

// showResult asks the development server what it found; of an upload that was only published to, it knows nothing.
async function showResult(id, card) {
  if (/^\.\.?$/.test(id)) return // a browser asks for another address; this page gives no file such an id
  const address = `/demo/uploads/${encodeURIComponent(id)}`
  try {
    const answer = await fetch(address)
    if (answer.status !== 200) return
    const result = await answer.json()
    if (card.state !== 'completed') return
    card.found(result)
    if (result.thumbnail) card.picture(`${address}/thumbnail?${result.sha256.slice(0, 8)}`)
  } catch {
    // The description that came with the message says the same.
  }
}

// Connection

function showConnection(status) {
  const changed = status.state !== connection.state
  connection = status
  element('connection').dataset.state = status.state
  element('reconnect').hidden = status.state !== 'waiting' && status.state !== 'stopped'
  element('reconnect').textContent = status.state === 'stopped' ? 'Try again' : 'Reconnect now'
  tick()
  uploader.setOnline(status.state === 'live')
  if (changed && status.state !== 'connecting') announce(element('connection-text').textContent)
}

function tick() {
  element('connection-text').textContent = connectionText()
}

function connectionText() {
  switch (connection.state) {
    case 'live': return 'Live'
    case 'waiting': return `Reconnecting in ${Math.max(1, Math.ceil((connection.retryAt - Date.now()) / 1000) || 1)} s`
    case 'stopped': return `Stopped: ${connection.error.message}`
    default: return 'Connecting…'
  }
}

// Page

function announce(text) {
  element('announcer').textContent = text
}

async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text)
    announce(done)
    return true
  } catch {
    announce('The browser does not let this page copy.')
    return false
  }
}

function showLines() {
  const id = element('upload-id').value
  if (idProblem(id)) return
  element('curl').textContent = curlLine(id)
  element('shoal').textContent = shoalLine(id)
}

element('file').addEventListener('change', (event) => {
  send(event.target.files)
  event.target.value = '' // so that the same file can be chosen again
})

for (const [name, over] of [['dragenter', true], ['dragover', true], ['dragleave', false], ['drop', false]]) {
  element('drop').addEventListener(name, () => element('drop').classList.toggle('over', over))
}

// A file that is dropped beside the field would take the place of the page.
for (const name of ['dragover', 'drop']) {
  addEventListener(name, (event) => {
    if (event.dataTransfer?.types.includes('Files') && event.target !== element('file')) event.preventDefault()
  })
}

element('follow').addEventListener('submit', (event) => {
  event.preventDefault()
  const id = element('upload-id').value
  const problem = idProblem(id) || (show({ id, name: id }) ? '' : FULL)
  element('follow-problem').textContent = problem
  if (problem) return
  memory.add({ id, name: id, mine: cards.get(id).mine })
  cards.get(id).element.scrollIntoView({ block: 'nearest' })
})

element('upload-id').addEventListener('input', () => {
  element('follow-problem').textContent = ''
  showLines()
})

for (const button of document.querySelectorAll('[data-copy]')) {
  button.addEventListener('click', async () => {
    if (!await copy(element(button.dataset.copy).textContent, 'Copied.')) return
    button.textContent = 'Copied'
    setTimeout(() => { button.textContent = 'Copy' }, 2000)
  })
}

element('reconnect').addEventListener('click', () => shoal.reconnect())
addEventListener('beforeunload', (event) => {
  if (uploader.busy) event.preventDefault() // leaving would cut the upload off
})

memory.uploads().reverse().forEach(show)
showLines()
setInterval(tick, 500)

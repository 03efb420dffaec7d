// What this browser remembers between visits and shares between its tabs: who the user is, and which uploads
// are on the page. Where nothing can be stored, the page works all the same, but forgets.

const USER = 'shoal.user'
const UPLOADS = 'shoal.uploads'
const MOST = 24
const LONGEST_ID = 255

export class Memory {
  // onAdded(upload) is called when another tab of this browser, or a link, adds an upload {id, name, mine}.
  constructor({ onAdded }) {
    addEventListener('storage', (event) => {
      if (event.key === UPLOADS) for (const upload of this.uploads().reverse()) onAdded(upload)
    })
    addEventListener('hashchange', () => linked().forEach(onAdded))
  }

  user() {
    const known = read(USER)
    if (typeof known === 'string' && /^[\w-]{1,64}$/.test(known)) return known
    const fresh = `demo-${crypto.randomUUID().slice(0, 8)}`
    write(USER, fresh)
    return fresh
  }

  // uploads returns what is remembered and what the address names, newest first.
  uploads() {
    const stored = read(UPLOADS)
    const all = [...linked(), ...(Array.isArray(stored) ? stored : [])].filter(isUpload)
    return all.filter((upload, i) => all.findIndex((other) => other.id === upload.id) === i).slice(0, MOST)
  }

  add(upload) {
    write(UPLOADS, [upload, ...this.uploads().filter(({ id }) => id !== upload.id)].slice(0, MOST))
  }

  remove(id) {
    write(UPLOADS, this.uploads().filter((upload) => upload.id !== id))
    if (linked().some((upload) => upload.id === id)) history.replaceState(null, '', location.pathname)
  }
}

export function linkTo(id) {
  return `${location.origin}/#${new URLSearchParams({ follow: id })}`
}

// idProblem says what is wrong with an upload id, or ''.
export function idProblem(id) {
  if (id === '') return 'Type an id.'
  if (new TextEncoder().encode(id).length > LONGEST_ID) return `An id has at most ${LONGEST_ID} bytes.`
  // The replacement character stands for text that could not be decoded; the server refuses it.
  return /\p{Cc}|\ufffd/u.test(id) || !id.isWellFormed() ? 'An id has no control or replacement characters.' : ''
}

function linked() {
  return new URLSearchParams(location.hash.slice(1)).getAll('follow').filter((id) => !idProblem(id))
    .map((id) => ({ id, name: id, mine: false }))
}

function isUpload(value) {
  return typeof value?.id === 'string' && typeof value.name === 'string' && !idProblem(value.id)
}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key))
  } catch {
    return null
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value))
  } catch {
    // Storage is full or forbidden.
  }
}

// A server with a history, for sockets that a test turns by hand.

import { FakeSocket } from './fakes.js'

interface Topic { epoch: string; base: number; top: number } // messages up to base are no longer held

// FakeServer answers each FakeSocket as a Shoal server does. What it sends waits, in order, until a test delivers it.
export class FakeServer {
  #topics = new Map<string, Topic>()
  #epochs = 0
  #sessions = new Map<FakeSocket, { read: number; subscribed: Set<string>; sending: any[]; delivered: Map<string, number> }>()
  // refusing is the close code with which each new socket ends, if any.
  refusing: number | undefined

  topic(id: string): Topic {
    const topic = this.#topics.get(id) ?? { epoch: `e${++this.#epochs}`, base: 0, top: 0 }
    this.#topics.set(id, topic)
    return topic
  }

  publish(id: string): void {
    const topic = this.topic(id)
    topic.top++
    for (const session of this.#sessions.values()) if (session.subscribed.has(id)) session.sending.push(this.#message(id, topic.top))
  }

  // evict has the server hold the newest message only.
  evict(id: string): void {
    const topic = this.topic(id)
    topic.base = Math.max(topic.base, topic.top - 1)
  }

  // restart loses all histories.
  restart(): void {
    for (const id of this.#topics.keys()) this.#topics.set(id, { epoch: `e${++this.#epochs}`, base: 0, top: 0 })
    for (const socket of this.#sessions.keys()) this.end(socket)
  }

  end(socket: FakeSocket, code = 1006): void {
    this.#sessions.delete(socket)
    socket.ends(code)
  }

  // open are the sockets that clients have not closed.
  open(): FakeSocket[] {
    return FakeSocket.all.filter((socket) => socket.readyState !== 3)
  }

  subscribed(socket: FakeSocket): string[] {
    return [...this.#sessions.get(socket)?.subscribed ?? []].sort()
  }

  // delivered returns the offset of the newest message that a socket has brought.
  delivered(socket: FakeSocket, id: string): number {
    return this.#sessions.get(socket)?.delivered.get(id) ?? 0
  }

  // turn takes one step of a socket: it opens, the server reads, or the client gets one message.
  turn(socket: FakeSocket): boolean {
    if (socket.readyState === 3) return false
    const session = this.#sessions.get(socket) ?? { read: 0, subscribed: new Set<string>(), sending: [], delivered: new Map<string, number>() }
    this.#sessions.set(socket, session)
    if (socket.readyState === 0) {
      socket.opens()
      return true
    }
    const request = socket.sent[session.read]
    if (request) {
      session.read++
      this.#answer(request, session)
      if (request.type === 'auth' && this.refusing) this.end(socket, this.refusing)
      return true
    }
    const message = session.sending.shift()
    if (!message) return false
    if (message.offset) session.delivered.set(message.upload_id, message.offset)
    socket.says(message)
    return true
  }

  #answer({ type, action, upload_id: id, uploads }: any, { subscribed, sending }: { subscribed: Set<string>; sending: object[] }): void {
    if (type === 'auth') sending.push({ action: 'auth_success', user_id: 'ann' })
    else if (action === 'unsubscribe_upload') {
      subscribed.delete(id)
      sending.push({ action: 'unsubscribed', upload_id: id })
    } else if (action === 'subscribe_upload') sending.push(...this.#subscribe(id, undefined, subscribed))
    else if (action === 'resume') {
      const answers = Object.entries<any>(uploads).map(([id, since]) => this.#subscribe(id, since, subscribed))
      const first = answers.map(([{ upload_id, ...answer }]: any) => [upload_id, answer])
      sending.push({ action: 'resumed', uploads: Object.fromEntries(first) }, ...answers.flatMap((all) => all.slice(1)))
    }
  }

  // subscribe returns the answer to a claim, and the messages that follow it.
  #subscribe(id: string, since: { epoch: string; offset: number } | undefined, subscribed: Set<string>): object[] {
    const { epoch, base, top } = this.topic(id)
    subscribed.add(id)
    const recovered = since?.epoch === epoch && since.offset >= base && since.offset <= top
    const from = recovered ? since.offset : Math.max(top - 1, 0)
    const missed = Array.from({ length: top - from }, (_, i) => this.#message(id, from + i + 1))
    return [{ action: 'subscribed', upload_id: id, epoch, offset: top, recovered }, ...missed]
  }

  #message(id: string, offset: number): object {
    return { action: 'log', upload_id: id, offset, epoch: this.topic(id).epoch }
  }
}

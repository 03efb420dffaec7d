package client

import "slices"

// budget is the number of bytes that the queues of a client may hold together. Client.mu protects it.
type budget struct{ held, limit int }

// queue is the bounded queue of one loop. Client.mu protects it. A gap takes no room, as there is at most one between
// two messages.
type queue struct {
	items    []item
	messages int
	limit    int
	stateKey func(Message) (string, bool)
	budget   *budget
}

// item is a message, or the gap before the next one.
type item struct {
	message Message
	gap     *GapError
	key     stateKey
	state   bool
}

// stateKey identifies states that replace each other.
type stateKey struct{ action, key string }

// push appends a message and reports whether there was room for it. States that are older than others of their key give
// way first.
func (q *queue) push(m Message) bool {
	next := item{message: m}
	next.key.action = m.Action
	next.key.key, next.state = q.stateKey(m)
	if !q.fits(next) {
		q.conflate(&next)
	}
	if !q.fits(next) {
		return false
	}
	q.items = append(q.items, next)
	q.messages++
	q.budget.held += len(m.Data)
	return true
}

func (q *queue) fits(next item) bool {
	return q.messages == 0 || q.messages < q.limit && q.budget.held+len(next.message.Data) <= q.budget.limit
}

// conflate drops each state that has a newer one, and counts it in that one's Skipped.
func (q *queue) conflate(next *item) {
	newer := map[stateKey]*item{}
	if next.state {
		newer[next.key] = next
	}
	kept := len(q.items)
	for i := range slices.Backward(q.items) {
		it := &q.items[i]
		if by := newer[it.key]; it.state && it.gap == nil && by != nil {
			by.message.Skipped += it.message.Skipped + 1
			q.drop(it)
			continue
		}
		kept--
		q.items[kept] = *it
		if it.state && it.gap == nil {
			newer[it.key] = &q.items[kept]
		}
	}
	n := copy(q.items, q.items[kept:])
	clear(q.items[n:])
	q.items = q.items[:n]
}

// pushGap appends a gap. A gap that follows another one extends it.
func (q *queue) pushGap(g *GapError) {
	if n := len(q.items); n > 0 && q.items[n-1].gap != nil {
		q.items[n-1].gap.Now = g.Now
		return
	}
	q.items = append(q.items, item{gap: g})
}

func (q *queue) pop() (it item, ok bool) {
	if len(q.items) == 0 {
		return item{}, false
	}
	it = q.items[0]
	q.items[0] = item{}
	q.items = q.items[1:]
	if it.gap == nil {
		q.drop(&it)
	}
	return it, true
}

// clear drops all items.
func (q *queue) clear() {
	for range len(q.items) {
		q.pop()
	}
}

// drop subtracts a message from the bounds.
func (q *queue) drop(it *item) {
	q.messages--
	q.budget.held -= len(it.message.Data)
}

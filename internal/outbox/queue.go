package outbox

import (
	"iter"
	"sync"

	"github.com/shoal-go/shoal/internal/frame"
)

// An entry is one waiting frame.
type entry struct {
	frame *frame.Frame
	// at is when it was queued, on the pool's clock. It is kept only while the outbox has its own
	// goroutine: a healthy queue lives for microseconds, and reading a clock for each of a million
	// receivers costs more than queueing.
	at uint32
	// skipped is the number of older states that the frame replaced while they waited.
	skipped uint32
}

// chunkLen makes a chunk 256 bytes.
const chunkLen = 15

// A chunk is a link of a lane: the entries from lo up to hi wait. Entries never move while they wait, so the
// index may point at them.
type chunk struct {
	// The next chunk and the bounds share a cache line with the first entries.
	next    *chunk
	lo, hi  uint8
	entries [chunkLen]entry
}

// A tally is a number of frames and the sum of their sizes.
type tally struct{ frames, bytes int }

func (t *tally) add(f *frame.Frame) {
	t.frames++
	t.bytes += f.Size()
}

func (t *tally) subtract(other tally) {
	t.frames -= other.frames
	t.bytes -= other.bytes
}

// fits reports whether other can be added without exceeding the bound.
func (t tally) fits(other, bound tally) bool {
	return t.frames+other.frames <= bound.frames && t.bytes+other.bytes <= bound.bytes
}

// A lane is a queue of entries. An empty one has no chunks, and no chunk in it is empty. It is protected by
// the mutex of its outbox.
type lane struct {
	// lone holds what came into the empty lane, and so goes ahead of all chunks: a connection that has nothing
	// waiting, as most have, is sent a message without memory being touched that lies elsewhere.
	lone       entry
	head, tail *chunk
	// held is what waits here together with what the owner has taken and not yet written: the bounds are
	// about all that the kernel does not have.
	held tally
}

// push adds an entry behind all others and returns its place.
func (l *lane) push(chunks *sync.Pool, e entry) *entry {
	l.held.add(e.frame)
	if l.empty() {
		l.lone = e
		return &l.lone
	}
	if l.tail == nil || l.tail.hi == chunkLen {
		c, _ := chunks.Get().(*chunk)
		if c == nil {
			c = new(chunk)
		}
		if l.tail == nil {
			l.head = c
		} else {
			l.tail.next = c
		}
		l.tail = c
	}
	place := &l.tail.entries[l.tail.hi]
	*place = e
	l.tail.hi++
	return place
}

func (l *lane) empty() bool { return l.lone.frame == nil && l.head == nil }

// first returns the oldest entry, or nil.
func (l *lane) first() *entry {
	switch {
	case l.lone.frame != nil:
		return &l.lone
	case l.head == nil:
		return nil
	}
	return &l.head.entries[l.head.lo]
}

// pop removes the oldest entry. It stays counted in held until it has been written.
func (l *lane) pop(chunks *sync.Pool) {
	if l.lone.frame != nil {
		l.lone = entry{}
		return
	}
	c := l.head
	c.entries[c.lo] = entry{} // lets the frame be collected
	c.lo++
	if c.lo < c.hi {
		return
	}
	l.head = c.next
	if l.head == nil {
		l.tail = nil
	}
	c.next, c.lo, c.hi = nil, 0, 0
	chunks.Put(c)
}

// popAll removes all entries, as pop does, and appends them to dst.
func (l *lane) popAll(dst []entry, chunks *sync.Pool) []entry {
	if l.lone.frame != nil {
		dst = append(dst, l.lone)
		l.lone = entry{}
	}
	for c := l.head; c != nil; {
		waiting, next := c.entries[c.lo:c.hi], c.next
		dst = append(dst, waiting...)
		clear(waiting)
		c.next, c.lo, c.hi = nil, 0, 0
		chunks.Put(c)
		c = next
	}
	l.head, l.tail = nil, nil
	return dst
}

// putBack puts entries ahead of all others, in their order. It moves what waits: no index may know of it.
func (l *lane) putBack(chunks *sync.Pool, entries []entry) {
	if len(entries) == 0 {
		return
	}
	front := lane{held: l.held}
	for _, e := range entries {
		front.push(chunks, e)
	}
	if l.lone.frame != nil {
		front.push(chunks, l.lone)
		front.held.subtract(tally{1, l.lone.frame.Size()})
	}
	front.join(l)
	*l = front
}

// join appends the chunks of another lane.
func (l *lane) join(other *lane) {
	switch {
	case other.head == nil:
	case l.tail == nil:
		l.head, l.tail = other.head, other.tail
	default:
		l.tail.next, l.tail = other.head, other.tail
	}
}

// replace puts another frame in the place of a waiting one.
func (l *lane) replace(e *entry, f *frame.Frame) {
	l.held.bytes += f.Size() - e.frame.Size()
	e.frame = f
}

// forget drops what waits. held is not kept any more: it has no use in an outbox that takes nothing in.
func (l *lane) forget() { l.lone, l.head, l.tail = entry{}, nil, nil }

// all yields the places of the waiting entries, oldest first.
func (l *lane) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		if l.lone.frame != nil && !yield(&l.lone) {
			return
		}
		for c := l.head; c != nil; c = c.next {
			for i := c.lo; i < c.hi; i++ {
				if !yield(&c.entries[i]) {
					return
				}
			}
		}
	}
}

package outbox

import (
	"iter"
	"sync"

	"github.com/shoal-go/shoal/internal/frame"
)

// queuedFrame is one frame in a queue.
type queuedFrame struct {
	frame *frame.Frame
	// enqueued is the enqueue time on the pool's clock. It is set only while the outbox is draining: frames of
	// clients that keep up are queued for microseconds, and reading a clock for each of a million receivers costs
	// more than queueing.
	enqueued uint32
	// skipped is the number of older states that the frame has replaced in the queue.
	skipped uint32
}

// chunkLen makes a chunk 256 bytes.
const chunkLen = 15

// chunk is a link of a queue. The frames entries[lo:hi] are queued. They do not move while they are queued, so the
// index may hold pointers to them.
type chunk struct {
	// next, lo and hi share a cache line with the first entries.
	next   *chunk
	lo, hi uint8
	// removed is kept in the first chunk of a queue: the number of entries without a frame in all its chunks, which are
	// frames that were removed from within the queue.
	removed uint32
	entries [chunkLen]queuedFrame
}

// amount is a number of frames and the sum of their sizes.
type amount struct{ frames, bytes int }

func (a *amount) add(f *frame.Frame) {
	a.frames++
	a.bytes += f.Size()
}

func (a *amount) subtract(other amount) {
	a.frames -= other.frames
	a.bytes -= other.bytes
}

// fits reports whether a and other together are within the limit.
func (a amount) fits(other, limit amount) bool {
	return a.frames+other.frames <= limit.frames && a.bytes+other.bytes <= limit.bytes
}

// queue is a FIFO of frames. An empty queue has no chunks, and no chunk in it is empty. The mutex of its
// outbox protects it.
type queue struct {
	// inline holds a frame pushed onto the empty queue, which is dequeued before all chunks: sending to a connection
	// with an empty queue, the common case, touches no memory outside of the Outbox.
	inline     queuedFrame
	head, tail *chunk
	// unwritten is the amount of the queued frames and of those that the owner has dequeued and not yet written:
	// the limits apply to all frames that the kernel has not accepted.
	unwritten amount
}

// push appends a frame and returns a pointer to it that is valid while it is queued.
func (q *queue) push(chunks *sync.Pool, e queuedFrame) *queuedFrame {
	q.unwritten.add(e.frame)
	if q.empty() {
		q.inline = e
		return &q.inline
	}
	if q.tail == nil || q.tail.hi == chunkLen {
		c, _ := chunks.Get().(*chunk)
		if c == nil {
			c = new(chunk)
		}
		if q.tail == nil {
			q.head = c
		} else {
			q.tail.next = c
		}
		q.tail = c
	}
	place := &q.tail.entries[q.tail.hi]
	*place = e
	q.tail.hi++
	return place
}

func (q *queue) empty() bool { return q.inline.frame == nil && q.head == nil }

// first returns the oldest frame, or nil.
func (q *queue) first() *queuedFrame {
	switch {
	case q.inline.frame != nil:
		return &q.inline
	case q.head == nil:
		return nil
	}
	return &q.head.entries[q.head.lo]
}

// pop removes the oldest frame. It remains counted in unwritten until the owner has written it.
func (q *queue) pop(chunks *sync.Pool) {
	if q.inline.frame != nil {
		q.inline = queuedFrame{}
		return
	}
	c := q.head
	c.entries[c.lo] = queuedFrame{} // releases the frame to the garbage collector
	c.lo++
	if c.lo == c.hi {
		q.dropHead(chunks)
	}
	q.skipRemoved(chunks)
}

// dropHead removes the first chunk, which is empty.
func (q *queue) dropHead(chunks *sync.Pool) {
	c := q.head
	q.head = c.next
	if q.head == nil {
		q.tail = nil
	} else {
		q.head.removed = c.removed
	}
	c.next, c.lo, c.hi, c.removed = nil, 0, 0, 0
	chunks.Put(c)
}

// remove removes a frame from within the queue.
func (q *queue) remove(e *queuedFrame, chunks *sync.Pool) {
	q.unwritten.subtract(amount{1, e.frame.Size()})
	if e == &q.inline {
		q.inline = queuedFrame{}
		return
	}
	*e = queuedFrame{}
	q.head.removed++
	q.skipRemoved(chunks)
}

// skipRemoved drops removed entries at the front, so that the first entry of the chunks has a frame.
func (q *queue) skipRemoved(chunks *sync.Pool) {
	for q.head != nil && q.head.removed > 0 && q.head.entries[q.head.lo].frame == nil {
		q.head.removed--
		if q.head.lo++; q.head.lo == q.head.hi {
			q.dropHead(chunks)
		}
	}
}

// sparse reports whether most entries have been removed, so that compacting the queue costs less than the removals did.
func (q *queue) sparse() bool {
	return q.head != nil && q.head.removed > 2*chunkLen && int(q.head.removed) > q.unwritten.frames
}

// compact moves the frames together. It invalidates pointers to them.
func (q *queue) compact(chunks *sync.Pool) {
	unwritten := q.unwritten
	for _, e := range q.popAll(nil, chunks) {
		q.push(chunks, e)
	}
	q.unwritten = unwritten
}

// popAll removes all frames, as pop does, and appends them to dst.
func (q *queue) popAll(dst []queuedFrame, chunks *sync.Pool) []queuedFrame {
	if q.inline.frame != nil {
		dst = append(dst, q.inline)
		q.inline = queuedFrame{}
	}
	var removed uint32
	if q.head != nil {
		removed = q.head.removed
	}
	for c := q.head; c != nil; {
		waiting, next := c.entries[c.lo:c.hi], c.next
		if removed == 0 {
			dst = append(dst, waiting...)
		} else {
			for _, e := range waiting {
				if e.frame != nil {
					dst = append(dst, e)
				}
			}
		}
		clear(waiting)
		c.next, c.lo, c.hi, c.removed = nil, 0, 0, 0
		chunks.Put(c)
		c = next
	}
	q.head, q.tail = nil, nil
	return dst
}

// pushFront inserts frames before all others, in their order. It moves the inline frame, so there must be no index.
func (q *queue) pushFront(chunks *sync.Pool, entries []queuedFrame) {
	if len(entries) == 0 {
		return
	}
	front := queue{unwritten: q.unwritten}
	for _, e := range entries {
		front.push(chunks, e)
	}
	if q.inline.frame != nil {
		front.push(chunks, q.inline)
		front.unwritten.subtract(amount{1, q.inline.frame.Size()})
	}
	front.join(q)
	*q = front
}

// join appends the chunks of another queue.
func (q *queue) join(other *queue) {
	switch {
	case other.head == nil:
	case q.tail == nil:
		q.head, q.tail = other.head, other.tail
	default:
		q.head.removed += other.head.removed
		other.head.removed = 0
		q.tail.next, q.tail = other.head, other.tail
	}
}

// replace replaces a queued frame.
func (q *queue) replace(e *queuedFrame, f *frame.Frame) {
	q.unwritten.bytes += f.Size() - e.frame.Size()
	e.frame = f
}

// clear drops the queued frames. Those that have been dequeued remain unwritten.
func (q *queue) clear() {
	for e := range q.all() {
		q.unwritten.subtract(amount{1, e.frame.Size()})
	}
	q.inline, q.head, q.tail = queuedFrame{}, nil, nil
}

// all yields pointers to the queued frames, oldest first.
func (q *queue) all() iter.Seq[*queuedFrame] {
	return func(yield func(*queuedFrame) bool) {
		if q.inline.frame != nil && !yield(&q.inline) {
			return
		}
		for c := q.head; c != nil; c = c.next {
			for i := c.lo; i < c.hi; i++ {
				if c.entries[i].frame != nil && !yield(&c.entries[i]) {
					return
				}
			}
		}
	}
}

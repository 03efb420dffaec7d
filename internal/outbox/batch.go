package outbox

import (
	"sync"

	"github.com/shoal-go/shoal/internal/frame"
)

// What a batch holds at most, unless a single frame is larger. A writer's is one large write; a stalled
// connection's is small, because what has been taken into a batch can no longer be replaced or dropped.
const (
	writerBatch = 64 << 10
	drainBatch  = 16 << 10
)

// A batch is what an outbox's owner has taken out of it to write in one go. It belongs to one goroutine.
type batch struct {
	// entries are those taken: first the ones of the control lane, controls in number, then data.
	entries  []entry
	controls int
	// ends are the places in buf where the wire forms of the entries end.
	ends []int
	buf  []byte
	// control and data are what the batch counts for in the lanes until it has been written.
	control, data tally
	// last: the batch was taken after an overflow, so it holds nothing but the outbox's last frames.
	last bool
}

func newBatch() *batch { return &batch{buf: make([]byte, 0, drainBatch)} }

func (b *batch) reset() {
	clear(b.entries) // lets the frames be collected
	buf := b.buf[:0]
	if cap(buf) > 2*writerBatch {
		buf = nil // one huge frame must not stay for ever
	}
	*b = batch{entries: b.entries[:0], ends: b.ends[:0], buf: buf}
}

// full reports whether a frame of the size has to wait for the next batch.
func (b *batch) full(size, limit int) bool {
	return len(b.entries) > 0 && b.control.bytes+b.data.bytes+size > limit
}

// takeFrom moves entries of a lane into the batch as long as they fit, and counts them in t, which is the
// batch's tally for that lane. x may be nil.
func (b *batch) takeFrom(l *lane, t *tally, x index, limit int, chunks *sync.Pool) {
	if x == nil && b.control.bytes+l.held.bytes <= limit {
		b.entries = l.popAll(b.entries, chunks) // nearly always
		*t = l.held                             // the batch was empty, so nothing but what waits was held
		return
	}
	for e := l.first(); e != nil && !b.full(e.frame.Size(), limit); e = l.first() {
		if x != nil {
			x.drop(e)
		}
		b.entries = append(b.entries, *e)
		t.add(e.frame)
		l.pop(chunks)
	}
}

func (b *batch) encode(v frame.Variant) {
	for _, e := range b.entries {
		b.buf = e.frame.Append(b.buf, v, e.skipped)
		b.ends = append(b.ends, len(b.buf))
	}
}

// written returns the number of entries of which all bytes are among the first n, and the bytes that
// complete a frame of which only some are.
func (b *batch) written(n int) (whole int, partial []byte) {
	start := 0
	for whole < len(b.ends) && b.ends[whole] <= n {
		start = b.ends[whole]
		whole++
	}
	if start < n {
		partial = b.buf[n:b.ends[whole]]
	}
	return whole, partial
}

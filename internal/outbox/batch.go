package outbox

import (
	"sync"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/replay"
)

// writerBatch and drainBatch are the sizes of a batch in bytes, unless a single frame is larger. A writer's batch is
// one large write. A drain goroutine's is small, because a frame in a batch can no longer be conflated or
// dropped.
const (
	writerBatch = 64 << 10
	drainBatch  = 16 << 10
)

// batch holds the frames that an owner has dequeued to write them at once. It belongs to one goroutine.
type batch struct {
	// entries are the dequeued frames: the first `controls` of them from the control queue, those up to `live` from the
	// data queue, the rest from the backlogs of a recovery.
	entries        []queuedFrame
	controls, live int
	// recovery is nil if the batch has no frames of a recovery. backlogs are the sources of those frames.
	recovery *recovery
	backlogs []*replay.Backlog
	// ends are the offsets in buf at which the encoded entries end.
	ends []int
	buf  []byte
	// control and data are the amounts that the batch contributes to the queues' unwritten amounts.
	control, data amount
	// overhead is the number of bytes that each frame takes beyond its size.
	overhead int
	// final: the batch was filled after an overflow, so it holds only the final frames.
	final bool
}

func (b *batch) reset() {
	clear(b.entries) // releases the frames to the garbage collector
	buf := b.buf[:0]
	if cap(buf) > 2*writerBatch {
		buf = nil // do not keep a buffer that one huge frame has grown
	}
	clear(b.backlogs)
	*b = batch{entries: b.entries[:0], backlogs: b.backlogs[:0], ends: b.ends[:0], buf: buf}
}

// full reports whether a frame of the size has to go into the next batch.
func (b *batch) full(size, limit int) bool {
	return len(b.entries) > 0 && b.control.bytes+b.data.bytes+size+(len(b.entries)+1)*b.overhead > limit
}

// moveFrom moves frames of q into the batch up to the limit and counts them in total, the batch's amount for that
// queue. x may be nil.
func (b *batch) moveFrom(q *queue, total *amount, x *index, limit int, chunks *sync.Pool) {
	if x == nil && b.control.bytes+q.unwritten.bytes+(len(b.entries)+q.unwritten.frames)*b.overhead <= limit {
		b.entries = q.popAll(b.entries, chunks) // the common case
		*total = q.unwritten                    // the batch was empty, so exactly the queued frames were unwritten
		return
	}
	for e := q.first(); e != nil && !b.full(e.frame.Size(), limit); e = q.first() {
		if x != nil {
			x.remove(e)
		}
		b.entries = append(b.entries, *e)
		total.add(e.frame)
		q.pop(chunks)
	}
}

// encode encodes the entries in the wire form of the outbox.
func (b *batch) encode(o *Outbox) {
	if o.events != nil {
		b.encodeEvents(o.events)
		return
	}
	for _, e := range b.entries {
		b.buf = e.frame.Append(b.buf, o.variant, e.skipped)
		b.ends = append(b.ends, len(b.buf))
	}
}

func (b *batch) encodeEvents(events *frame.EventEncoder) {
	events.Begin()
	for _, e := range b.entries {
		b.buf = events.Append(b.buf, e.frame, e.skipped)
		b.ends = append(b.ends, len(b.buf))
	}
}

// written returns the number of entries that lie completely within the first n bytes, and the remaining bytes of a
// partly written entry.
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

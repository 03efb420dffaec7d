package outbox

import (
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// Outcome says what became of a frame.
type Outcome uint8

const (
	// Queued means that the frame waits, or is on its way.
	Queued Outcome = iota
	// Conflated means that the frame waits in the place of an older state of the same upload.
	Conflated
	// Dropped means that the outbox is closing, or could not hold the frame and closes because of it.
	Dropped
)

// An Outbox is the outbound side of one connection. Its methods may be called from any number of
// goroutines, and none of them waits for the client. Frames are written in the order in which they were
// queued, except that control frames go ahead of what waits.
type Outbox struct {
	// What every frame needs comes first, so that it is fetched together: in a large fan-out every outbox is
	// cold.

	// mu protects the fields that say so. No I/O is done under it, and the only lock that may be taken is
	// the writer's.
	mu    sync.Mutex
	data  lane  // by mu
	index index // by mu
	// owned: somebody may write to the socket. draining: it is the outbox's own goroutine. stalled: because
	// the socket refused bytes. By mu.
	owned, draining, stalled bool
	// closing: nothing is accepted any more, and the last frames are queued. overflowed: because the client
	// was too slow. peerGone: nothing more will be read from the client. By mu.
	closing, overflowed, peerGone bool
	// dead: the socket is being closed. shut: it is closed. ended: and nobody owns the outbox any more. By mu.
	dead, shut, ended bool
	variant           frame.Variant
	// oldest is when the oldest frame not yet written was queued. It is kept while draining. By mu.
	oldest uint32

	writer  *writer
	pool    *Pool
	raw     syscall.RawConn // nil: conn has none
	control lane            // by mu
	conn    net.Conn
	// timer fires when the oldest frame may have become too old or, once closing, when there has been
	// time enough to close. By mu.
	timer *time.Timer
	// done is made when somebody asks for it. By mu.
	done     chan struct{}
	overflow []*frame.Frame
	// prevOpen and nextOpen link the open outboxes of the writer while linked says so. The writer's mutex
	// protects all three.
	prevOpen, nextOpen *Outbox
	linked             bool
}

// Send queues a frame. It does no I/O and waits for nothing but the outbox's mutex, which is held for
// moments only.
//
// A frame that is due to be queued while as many wait as the pool's options allow makes the outbox close
// itself, as does a control frame too many: what waits is dropped and the client is told, so that it can
// come back and recover.
func (o *Outbox) Send(f *frame.Frame) Outcome {
	size := tally{1, f.Size()}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.dead {
		o.writer.count.dropped.Add(1)
		return Dropped
	}
	if f.Class() == frame.Control {
		return o.sendControl(f, size)
	}
	if older := o.replaceable(f); older != nil {
		return o.conflate(older, f)
	}
	if !o.data.held.fits(size, o.pool.bound) {
		return o.refuse()
	}
	e := o.data.push(&o.pool.chunks, entry{frame: f, at: o.stamp()})
	if o.index != nil {
		o.index.note(e)
	}
	o.own()
	return Queued
}

// sendControl queues a frame in the control lane, or in the place of one that it makes superfluous.
func (o *Outbox) sendControl(f *frame.Frame, size tally) Outcome {
	if e := o.superfluous(f); e != nil {
		o.control.replace(e, f)
		return Queued
	}
	if !o.control.held.fits(size, controlBound) {
		return o.refuse()
	}
	o.control.push(&o.pool.chunks, entry{frame: f, at: o.stamp()})
	o.own()
	return Queued
}

// superfluous returns the waiting control frame that f stands for as well, or nil: the same frame, or a
// pong if f is one, for the newest pong is enough (RFC 6455, 5.5.3).
func (o *Outbox) superfluous(f *frame.Frame) *entry {
	for e := range o.control.all() {
		if e.frame == f || (e.frame.Opcode() == frame.Pong && f.Opcode() == frame.Pong) {
			return e
		}
	}
	return nil
}

// conflate puts a state in the place of an older one. It takes over the older one's age: the client has
// been waiting for news of this upload since then.
func (o *Outbox) conflate(e *entry, f *frame.Frame) Outcome {
	growth := tally{bytes: f.Size() - e.frame.Size()}
	if !o.data.held.fits(growth, o.pool.bound) {
		return o.refuse()
	}
	o.data.replace(e, f)
	e.skipped++
	o.writer.count.conflated.Add(1)
	return Conflated
}

// refuse closes the outbox because it cannot hold a frame.
func (o *Outbox) refuse() Outcome {
	o.overflowLocked()
	o.writer.count.dropped.Add(1)
	return Dropped
}

// stamp returns the time for a new entry, where it is kept.
func (o *Outbox) stamp() uint32 {
	if !o.draining {
		return 0
	}
	return o.pool.clock()
}

// own puts the outbox on its writer's list if nobody owns it. It stays under the outbox's mutex until the
// writer has it: a pool that closes relies on every owned outbox being known to its owner.
func (o *Outbox) own() {
	if !o.owned {
		o.owned = true
		o.writer.add(o)
	}
}

// next tells the owner that its batch has been written, and takes the next one. If it returns false there
// is nothing to write and the caller is no longer the owner.
func (o *Outbox) next(b *batch, limit int) bool {
	o.mu.Lock()
	o.settle(b)
	if !o.dead && !(o.control.empty() && o.data.empty()) {
		o.take(b, limit)
		o.mu.Unlock()
		return true
	}
	flushed := o.closing && !o.dead
	if flushed && !o.peerGone {
		o.mu.Unlock()
		halfClose(o.conn)
		o.mu.Lock()
	}
	gone := flushed && o.peerGone
	o.release()
	o.mu.Unlock()
	if gone {
		o.Abort()
	}
	return false
}

// settle stops counting what has been written, and empties the batch.
func (o *Outbox) settle(b *batch) {
	o.control.held.subtract(b.control)
	o.data.held.subtract(b.data)
	b.reset()
}

// take fills an empty batch.
func (o *Outbox) take(b *batch, limit int) {
	if o.draining {
		o.oldest = o.oldestWaiting()
	}
	b.last = o.overflowed
	chunks := &o.pool.chunks
	b.takeFrom(&o.control, &b.control, nil, limit, chunks)
	b.controls = len(b.entries)
	b.takeFrom(&o.data, &b.data, o.index, limit, chunks)
	if o.data.empty() {
		o.dropIndex()
	}
}

// oldestWaiting returns the earlier of the lanes' first times. At least one lane must have an entry.
func (o *Outbox) oldestWaiting() uint32 {
	c, d := o.control.first(), o.data.first()
	if d == nil || (c != nil && d.at-c.at < c.at-d.at) { // times wrap, so they are compared by distance
		return c.at
	}
	return d.at
}

// release ends the ownership of the caller.
func (o *Outbox) release() {
	if o.stalled {
		o.writer.count.stalled.Add(-1)
	}
	if !o.closing {
		o.disarm()
	}
	o.owned, o.draining, o.stalled = false, false, false
	o.endLocked()
}

// rescue, deferred by an owner, ends the outbox if writing to it panicked: one bad connection must not take
// the others of its writer with it.
func (o *Outbox) rescue() {
	if recover() == nil {
		return
	}
	o.writer.count.panics.Add(1)
	o.Abort()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.release()
}

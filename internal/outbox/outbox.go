package outbox

import (
	"net"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// Outcome is the result of Send.
type Outcome = frame.Outcome

// Outcomes of Send.
const (
	Queued    = frame.Queued
	Conflated = frame.Conflated
	Dropped   = frame.Dropped
)

// Outbox is the outbound side of one connection. Its methods may be called from any number of goroutines and never
// wait for the client. Frames are written in the order in which they were queued, except that control frames
// are written before queued data.
type Outbox struct {
	// The fields that every Send touches come first: in a large fan-out no outbox is in the CPU cache, and the
	// order of the fields decides how many cache lines are loaded.

	// mu protects the fields marked "by mu". No I/O is done while it is held; the only lock that may be acquired is
	// the writer's.
	mu    sync.Mutex
	data  queue  // by mu
	index *index // by mu
	// owned: a goroutine owns the outbox. draining: the owner is a drain goroutine. stalled: it drains because the
	// socket returned EAGAIN. By mu.
	owned, draining, stalled bool
	// pending: the owner has to write bytes that the TryWriter holds (see WritePending). By mu.
	pending bool
	// closing: no frame is accepted any more and the final frames are queued. overflowed: closing because the client
	// is too slow. peerGone: the connection's reader has ended. By mu.
	closing, overflowed, peerGone bool
	// dead: the socket is being closed. shut: it is closed. ended: it is closed and the outbox has no owner. By mu.
	dead, shut, ended bool
	variant           frame.Variant
	// linked: the outbox is in the writer's list of open outboxes. By the writer's mutex.
	linked bool
	// slow is the number of further writes before which the owner checks that the socket is writable: slowChecks after a
	// stall. It belongs to the owner.
	slow uint8
	// oldest is the enqueue time of the oldest unwritten frame; maintained only while draining. By mu.
	oldest uint32
	// recovery is nil except while stored messages are unwritten. By mu.
	recovery *recovery

	writer  *writer
	pool    *Pool
	raw     syscall.RawConn // nil: conn has no file descriptor
	control queue           // by mu
	conn    net.Conn
	// timer enforces the maximum age of queued frames or, once closing, the close timeout. By mu.
	timer *time.Timer
	// done is created by the first call of Done. By mu.
	done     chan struct{}
	overflow func() []*frame.Frame
	// events encodes the frames of an event stream; nil: the connection is a WebSocket. It belongs to the owner.
	events *frame.EventEncoder
	// prevOpen and nextOpen link the writer's open outboxes. By the writer's mutex.
	prevOpen, nextOpen *Outbox
}

// Send queues a frame. It does no I/O and blocks only for the outbox's mutex, which is never held for long.
//
// If the frame would exceed Options.MaxMessages or Options.MaxBytes and the client has had time to read (see
// Options.MaxBurstMessages), or a control frame would exceed the limits of the control queue, the outbox drops its
// queues, sends the overflow frames of its Config and closes: the client can reconnect and recover.
//
// A frame of an upload in recovery is queued behind that recovery.
func (o *Outbox) Send(f *frame.Frame) Outcome {
	size := amount{1, f.Size()}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.dead {
		return Dropped
	}
	if f.Class() == frame.Control {
		return o.sendControl(f, size)
	}
	if o.recovery != nil {
		if outcome, handled := o.sendInOrder(f); handled {
			return outcome
		}
	}
	if older := o.replaceable(f); older != nil {
		return o.conflate(older, f)
	}
	if !o.data.unwritten.fits(size, o.pool.limit) && !o.tolerates(size) {
		return o.rejectOverLimit()
	}
	o.push(queuedFrame{frame: f, enqueued: o.enqueueTime()})
	o.scheduleLocked()
	return Queued
}

// tolerates reports whether the data queue may exceed its limit by the frame, which it does if the frame fits without
// the answers queued by Release, or as long as the client is not to blame: its writer has not served the outbox yet,
// or the socket has been refusing bytes for less than burstAge.
func (o *Outbox) tolerates(size amount) bool {
	if r := o.recovery; r != nil {
		held := o.data.unwritten
		held.subtract(r.exempt)
		if held.fits(size, o.pool.limit) {
			return true
		}
	}
	if o.draining && o.pool.clock()-o.oldest >= burstAge {
		return false
	}
	return o.data.unwritten.fits(size, o.pool.burst)
}

// sendControl queues a control frame, or replaces a queued one that f makes redundant.
func (o *Outbox) sendControl(f *frame.Frame, size amount) Outcome {
	if e := o.replaceableControl(f); e != nil {
		o.control.replace(e, f)
		return Queued
	}
	if !o.control.unwritten.fits(size, controlLimit) {
		return o.rejectOverLimit()
	}
	o.control.push(&o.pool.chunks, queuedFrame{frame: f, enqueued: o.enqueueTime()})
	o.scheduleLocked()
	return Queued
}

// maxPongs is the number of pings that are answered individually while the client does not read.
const maxPongs = 16

// replaceableControl returns the queued control frame that f makes redundant, or nil: the same frame, or the last of
// maxPongs pongs if f is one more, since RFC 6455, 5.5.3 allows answering only the newest ping.
func (o *Outbox) replaceableControl(f *frame.Frame) *queuedFrame {
	pongs := 0
	for e := range o.control.all() {
		if e.frame == f {
			return e
		}
		if e.frame.Opcode() != frame.Pong || f.Opcode() != frame.Pong {
			continue
		}
		if pongs++; pongs == maxPongs {
			return e
		}
	}
	return nil
}

// rejectOverLimit closes the outbox because a frame exceeds a limit.
func (o *Outbox) rejectOverLimit() Outcome {
	o.overflowLocked()
	return Dropped
}

// enqueueTime returns the enqueue time for a new frame, or 0 while the outbox is not draining.
func (o *Outbox) enqueueTime() uint32 {
	if !o.draining {
		return 0
	}
	return o.pool.clock()
}

// scheduleLocked puts the outbox on its writer's ready list if it has no owner. mu is held until the writer has the
// outbox: Pool.Close relies on every owned outbox being known to its owner.
func (o *Outbox) scheduleLocked() {
	if !o.owned {
		o.owned = true
		o.writer.enqueue(o)
	}
}

// next is called by the owner: it credits b, whose frames have been written, and fills b with queued frames, or leaves
// it empty because only pending bytes are to be written. It returns false if there is nothing to write; the caller is
// then no longer the owner.
func (o *Outbox) next(b *batch, limit int) bool {
	o.mu.Lock()
	o.creditWritten(b)
	for ready := false; ; ready = true {
		if o.recovery != nil && !o.continueRecovery() {
			o.mu.Unlock()
			o.detach(false)
			return false
		}
		if o.dead || o.control.empty() && o.data.empty() && !o.recovery.writable() && !o.pending {
			break
		}
		if ready || !o.draining && o.slow == 0 {
			if o.slow > 0 {
				limit = slowBatch
			}
			o.fillBatch(b, limit)
			o.mu.Unlock()
			return true
		}
		if !o.awaitWritable() {
			o.detach(true)
			return false
		}
	}
	flushed := o.closing && !o.dead
	if flushed && !o.peerGone {
		o.mu.Unlock()
		halfClose(o.conn)
		o.mu.Lock()
	}
	gone := flushed && o.peerGone
	o.releaseOwnership()
	o.mu.Unlock()
	if gone {
		o.Abort()
	}
	return false
}

// creditWritten subtracts the frames of b from the queues' unwritten amounts and resets b.
func (o *Outbox) creditWritten(b *batch) {
	o.control.unwritten.subtract(b.control)
	o.data.unwritten.subtract(b.data)
	o.creditRecovery(b)
	b.reset()
}

// fillBatch moves queued frames into the empty batch: control frames, data, then a portion of the recovery.
func (o *Outbox) fillBatch(b *batch, limit int) {
	o.pending = false // they are ahead of the batch
	if o.draining {
		o.oldest = o.oldestQueued()
	}
	b.final = o.overflowed
	if o.events != nil {
		b.overhead = o.events.Overhead()
	}
	chunks := &o.pool.chunks
	b.moveFrom(&o.control, &b.control, nil, limit, chunks)
	b.controls = len(b.entries)
	b.moveFrom(&o.data, &b.data, o.index, limit, chunks)
	b.live = len(b.entries)
	if o.data.empty() {
		o.dropIndex()
	}
	if o.recovery.writable() && (o.data.empty() || o.recovery.behind <= b.data.frames) {
		portion := writerPortion
		if o.draining {
			portion = drainPortion
		}
		o.recovery.moveTo(b, portion)
	}
}

// oldestQueued returns the earlier of the two queues' first enqueue times, or the current time if both are empty: the
// age limit applies to live frames and to the progress of a recovery.
func (o *Outbox) oldestQueued() uint32 {
	c, d := o.control.first(), o.data.first()
	if c == nil && d == nil {
		return o.pool.clock()
	}
	if d == nil || (c != nil && d.enqueued-c.enqueued < c.enqueued-d.enqueued) { // wrapping times: compare distances
		return c.enqueued
	}
	return d.enqueued
}

// releaseOwnership ends the ownership of the caller.
func (o *Outbox) releaseOwnership() {
	if o.stalled {
		o.writer.count.stalled.Add(-1)
	}
	if !o.closing {
		o.stopTimer()
	}
	o.owned, o.draining, o.stalled = false, false, false
	o.finishLocked()
}

// recoverPanic is deferred by owners. It aborts an outbox whose write panicked, so that one faulty net.Conn does not
// end the process or the writer's other connections.
func (o *Outbox) recoverPanic() {
	if recover() == nil {
		return
	}
	o.countPanic()
	o.Abort()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.releaseOwnership()
}

// countPanic counts and reports a panic of the connection. It must be called by the deferred function that recovered
// it, so that the stack includes the origin.
func (o *Outbox) countPanic() {
	o.writer.count.panics.Add(1)
	if o.pool.onPanic != nil {
		o.pool.onPanic(debug.Stack())
	}
}

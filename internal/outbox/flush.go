package outbox

import (
	"syscall"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

const (
	// flushBatches is the number of batches that Flush writes before the writer takes over.
	flushBatches = 2
	// flushInterval is the mean time between two frames that are flushed, flushAhead how far a few frames in a row may
	// run ahead of it. Beyond that frames are left to the writers: a publisher in a burst goes on, and many frames share
	// a write.
	flushInterval = 50 * time.Microsecond
	flushAhead    = time.Millisecond
)

// SendDeferred is Send for a caller that may write the frame itself: if flush is true, the outbox was idle, the caller
// is its owner now and must call Flush. Waking a writer goroutine takes longer than a write.
func (o *Outbox) SendDeferred(f *frame.Frame) (outcome Outcome, flush bool) {
	flush = o.claim()
	return o.Send(f), flush
}

// claim makes the caller the owner of an idle outbox, unless its frame should be left to the writers.
func (o *Outbox) claim() bool {
	if o.raw == nil && o.tryWriter() == nil || !o.pool.mayFlush() {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owned || o.dead {
		return false
	}
	o.owned = true
	return true
}

// Flush writes the queued frames of an outbox whose owner the caller is since SendDeferred. It does not wait for the
// client: bytes that the socket does not take at once are left to other goroutines. No lock may be held.
func (o *Outbox) Flush() {
	p := o.pool
	p.flushing.RLock()
	defer p.flushing.RUnlock()
	if p.closed {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.releaseOwnership()
		return
	}
	s := p.flushers.Get().(*socketWriter) // the pool holds nothing else
	// The first batch after a pause is in the sample.
	s.count, s.sample = &o.writer.count, sampleInterval-1
	if s.serve(o, flushBatches) {
		o.writer.enqueue(o)
	}
	p.flushers.Put(s)
}

// mayFlush counts a frame and reports whether it may be flushed: whether few frames have come recently. Frames that are
// left to the writers count too, or a publisher without pauses would flush as many as the interval allows, and wait for
// each write. A count lost to another goroutine does not matter.
func (p *Pool) mayFlush() bool {
	now := int64(time.Since(p.start))
	ahead := max(p.deferred.Load()-now, 0)
	p.deferred.Store(now + min(ahead+int64(flushInterval), 2*int64(flushAhead)))
	return ahead <= int64(flushAhead)
}

// TryWriter is implemented by a connection that has no file descriptor to write to, but can write without waiting.
type TryWriter interface {
	// TryWrite takes all of p, which may be empty, unless the connection has failed. If pending is true, bytes wait for
	// the socket, and WritePending must be called next.
	TryWrite(p []byte) (pending bool, err error)
	// WritePending writes the pending bytes, if there are any, and blocks until the socket has taken them.
	WritePending() error
}

// WritePending has the owner of the outbox call WritePending of the connection, a TryWriter that holds bytes of its
// own, such as an answer of a protocol below. It does not block. A connection that is closing may keep such bytes.
func (o *Outbox) WritePending() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.dead {
		return
	}
	o.pending = true
	o.scheduleLocked()
}

// tryWriter returns the connection if it is a TryWriter and has no file descriptor, else nil.
func (o *Outbox) tryWriter() TryWriter {
	if o.raw != nil {
		return nil
	}
	w, _ := o.conn.(TryWriter)
	return w
}

// socketWriter writes the frames of one outbox after the other without blocking. It belongs to one goroutine.
type socketWriter struct {
	count *counters
	batch batch
	// try is the method value of attempt: creating it for each write would allocate. accepted and err are the results of
	// attempt.
	try      func(fd uintptr)
	accepted int
	err      error
	// sample counts batches; every sampleInterval-th is passed to Options.Written, and the first after a pause.
	sample uint
}

func newSocketWriter() *socketWriter {
	s := new(socketWriter)
	s.try = s.attempt
	return s
}

// serve writes the queued frames of an outbox that the caller owns, at most a number of batches. If more is true,
// frames are left and the caller still owns the outbox; otherwise it is idle or has another owner.
func (s *socketWriter) serve(o *Outbox, batches int) (more bool) {
	defer o.recoverPanic()
	b := &s.batch
	b.reset() // stall or a panic may have left frames in it
	try, limit := o.tryWriter(), drainBatch
	switch {
	case o.raw != nil:
		limit = writerBatch
	case try == nil:
		o.detach(false)
		return false
	}
	for range batches {
		if !o.next(b, limit) {
			return false
		}
		b.encode(o)
		n, pending, err := len(b.buf), false, error(nil)
		if o.raw != nil {
			n, err = s.write(o.raw)
		} else {
			pending, err = try.TryWrite(b.buf)
		}
		if err != nil {
			o.Abort()
			continue
		}
		if n < len(b.buf) || pending {
			o.stall(b, n)
			return false
		}
		s.count.wrote(len(b.entries), n)
		o.pool.trace(b.entries)
		if s.sample++; s.sample%sampleInterval == 0 {
			o.pool.observeWritten(b)
		}
	}
	o.mu.Lock()
	o.creditWritten(b)
	o.mu.Unlock()
	return true
}

// write writes the batch with one system call and returns the number of bytes accepted.
//
// RawConn.Control is the cheapest access to the descriptor that keeps the socket from being closed during the call.
// RawConn.Write would also prepare to wait for writability and lock out other writers, which is unnecessary here.
func (s *socketWriter) write(raw syscall.RawConn) (int, error) {
	s.accepted, s.err = 0, nil
	if err := raw.Control(s.try); err != nil {
		return 0, err
	}
	return s.accepted, s.err
}

func (s *socketWriter) attempt(fd uintptr) { s.accepted, s.err = tryWrite(fd, s.batch.buf) }

package outbox

import (
	"slices"
	"syscall"
	"time"
)

// stall moves an outbox whose socket accepted only n bytes of the batch to a drain goroutine. The rest of a partly
// written frame is written first; the unwritten frames are requeued, where they may still be conflated.
func (o *Outbox) stall(b *batch, n int) {
	rest := o.pool.batch()
	whole, partial := b.written(n)
	o.writer.count.wrote(whole, n)
	o.pool.trace(b.entries[:whole])

	o.mu.Lock()
	defer o.mu.Unlock()
	o.control.unwritten.subtract(b.control)
	o.data.unwritten.subtract(b.data)
	if o.recovery != nil {
		o.recovery.creditLive(max(0, min(whole, b.live)-b.controls))
	}
	if b.recovery != nil && b.recovery == o.recovery {
		b.recovery.credit(b, whole)
	}
	requeueFrom := whole
	if len(partial) > 0 {
		rest.buf = append(rest.buf, partial...)
		o.addPartial(rest, b, whole)
		requeueFrom++
	}
	if o.events != nil { // the positions of the requeued entries are still to come
		o.events.Rewind()
		for _, e := range b.entries[:requeueFrom] {
			o.events.Advance(e.frame)
		}
	}
	if o.overflowed == b.final && !o.dead { // otherwise an overflow or Abort dropped the queues during the write
		o.requeue(b, requeueFrom)
	}
	o.noteStall()
	o.startDrain(rest)
}

// addPartial counts entry i of b, which is partly written, in the batch of the drain goroutine.
func (o *Outbox) addPartial(rest, b *batch, i int) {
	e := b.entries[i]
	rest.entries = append(rest.entries, e)
	switch {
	case i < b.controls:
		o.control.unwritten.add(e.frame)
		rest.control.add(e.frame)
		rest.controls, rest.live = 1, 1
	case i < b.live:
		o.data.unwritten.add(e.frame)
		rest.data.add(e.frame)
		rest.live = 1
	default:
		rest.recovery, rest.backlogs = b.recovery, append(rest.backlogs, b.backlogs[i-b.live])
	}
}

// requeue puts the entries of the batch from the given index on back at the front of their queues.
func (o *Outbox) requeue(b *batch, from int) {
	chunks := &o.pool.chunks
	var ahead []queuedFrame
	if b.recovery != nil && b.recovery == o.recovery {
		ahead = o.recovery.requeue(b, from)
	}
	from = min(from, b.live)
	if from == b.live && len(ahead) == 0 {
		return
	}
	o.dropIndex() // it does not contain the requeued frames
	controls := slices.DeleteFunc(b.entries[from:max(from, b.controls)], func(e queuedFrame) bool {
		return o.replaceableControl(e.frame) != nil // made redundant by a frame queued during the write
	})
	o.control.pushFront(chunks, controls)
	o.data.pushFront(chunks, slices.Concat(b.entries[max(from, b.controls):b.live], ahead))
}

// detach makes a drain goroutine the owner. stalled: the socket refuses bytes.
func (o *Outbox) detach(stalled bool) {
	b := o.pool.batch()
	o.mu.Lock()
	defer o.mu.Unlock()
	if stalled {
		o.noteStall()
	}
	o.startDrain(b)
}

// noteStall notes that the socket refuses bytes. The caller is the owner.
func (o *Outbox) noteStall() {
	if !o.stalled {
		o.stalled = true
		o.writer.count.stalled.Add(1)
	}
}

// startDrain makes a new drain goroutine the owner. b is its first batch and may be empty. The age of the queued
// frames starts now: until here they waited for the writer, not for the client.
func (o *Outbox) startDrain(b *batch) {
	p := o.pool
	now := p.clock()
	for e := range o.control.all() {
		e.enqueued = now
	}
	for e := range o.data.all() {
		e.enqueued = now
	}
	o.draining, o.oldest = true, now
	if !o.closing && !o.dead {
		o.setTimer(p.maxAge)
	}
	p.running.Go(func() { o.drain(b) })
}

// drain writes with blocking writes until the queues are empty, each when the socket is writable. It needs no write
// deadline: the outbox's timer closes the socket, which ends a blocked write.
func (o *Outbox) drain(b *batch) {
	defer o.recoverPanic()
	p := o.pool
	o.write(b)
	for o.next(b, drainBatch) {
		b.encode(o)
		oldest := o.oldest // only the owner changes it
		o.write(b)
		p.observeDrained(b, oldest)
	}
	p.batches.Put(b)
}

// write writes the pending bytes and the batch, its recovery in portions: each portion that the connection accepts is
// progress, which Options.MaxAge demands.
func (o *Outbox) write(b *batch) {
	if w := o.tryWriter(); w != nil && w.WritePending() != nil {
		o.Abort()
		return
	}
	if len(b.buf) == 0 {
		return
	}
	live := len(b.buf)
	if len(b.backlogs) > 0 {
		live = 0
		if b.live > 0 && len(b.ends) > 0 {
			live = b.ends[b.live-1]
		}
	}
	for written := 0; written < len(b.buf); {
		end := min(max(live, written+drainPortion), len(b.buf))
		if _, err := o.conn.Write(b.buf[written:end]); err != nil {
			o.Abort()
			return
		}
		written = end
		if written < len(b.buf) {
			o.noteProgress()
		}
	}
	o.writer.count.wrote(len(b.entries), len(b.buf))
	o.pool.trace(b.entries)
}

// trace passes the traced frames among written entries to Options.Traced.
func (p *Pool) trace(entries []queuedFrame) {
	if p.traced == nil {
		return
	}
	for _, e := range entries {
		if e.frame.Traced() {
			p.traced(e.frame)
		}
	}
}

// observeWritten passes the age of the oldest live frame of a written batch to Options.Written.
func (p *Pool) observeWritten(b *batch) {
	if p.written == nil || b.live <= b.controls {
		return
	}
	if age, ok := b.entries[b.controls].frame.Age(); ok {
		p.written(age)
	}
}

// observeDrained is observeWritten for a batch of a drain goroutine, whose oldest frame was queued at a time on clock.
func (p *Pool) observeDrained(b *batch, oldest uint32) {
	p.observeWritten(b)
	if p.waited != nil && b.live > 0 {
		p.waited(time.Duration(p.clock()-oldest) * time.Millisecond)
	}
}

// noteProgress restarts the age limit after a portion of a recovery has been written.
func (o *Outbox) noteProgress() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.oldest = o.oldestQueued()
}

// batch returns an empty batch for a drain goroutine.
func (p *Pool) batch() *batch {
	if b, ok := p.batches.Get().(*batch); ok {
		return b
	}
	return new(batch)
}

const (
	// slowChecks is the number of writes after a stall before which the owner checks that the socket is writable.
	slowChecks = 255
	// slowBatch is the size of a batch in that time: a frame in a batch can no longer be conflated or dropped.
	slowBatch = 4 << 10
)

// awaitWritable is called by the owner before it dequeues frames of a slow client. A drain goroutine waits until the
// socket is writable; any other owner only checks that. mu is held. It is released during the system call, and if the
// result is false.
//
// A write alone would exceed Options.UnsentBytes: the kernel checks the limit for each of its buffers, and appends to a
// buffer of up to 64 KiB without a check. A socket becomes writable when half of the limit has been sent.
func (o *Outbox) awaitWritable() (ready bool) {
	draining := o.draining
	if draining {
		o.oldest = o.oldestQueued()
	}
	o.mu.Unlock()
	ready = true
	switch raw := o.descriptor(); { // errors are left to the write that follows
	case raw == nil:
	case draining:
		_ = raw.Write(func(fd uintptr) bool {
			if writable(fd) {
				return true
			}
			o.noteSlow()
			return false
		})
	default:
		o.slow--
		_ = raw.Control(func(fd uintptr) { ready = writable(fd) })
		if !ready {
			o.slow = slowChecks
		}
	}
	if ready {
		o.mu.Lock()
	}
	return ready
}

// noteSlow is called by a drain goroutine whose socket is not writable.
func (o *Outbox) noteSlow() {
	o.slow = slowChecks
	o.mu.Lock()
	defer o.mu.Unlock()
	o.noteStall()
}

// descriptor gives access to the file descriptor of the connection or of the TCP connection below it, which a
// connection whose NetConn does not lead there has as its own, or returns nil.
func (o *Outbox) descriptor() syscall.RawConn {
	if o.raw != nil {
		return o.raw
	}
	if tcp := tcpConn(o.conn); tcp != nil {
		return rawConn(tcp)
	}
	if own, ok := o.conn.(syscall.Conn); ok {
		raw, _ := own.SyscallConn()
		return raw
	}
	return nil
}

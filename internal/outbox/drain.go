package outbox

import "slices"

// stall gives an outbox whose socket has taken only n bytes of the batch to a goroutine of its own. A frame
// of which the socket has some bytes goes first; those of which it has none wait again, where they may still
// be replaced.
func (o *Outbox) stall(b *batch, n int) {
	own := o.pool.batch()
	whole, partial := b.written(n)
	o.writer.count.wrote(whole, n)

	o.mu.Lock()
	defer o.mu.Unlock()
	o.control.held.subtract(b.control)
	o.data.held.subtract(b.data)
	waiting := whole
	if len(partial) > 0 {
		own.buf = append(own.buf, partial...)
		o.countIn(own, b.entries[whole], whole < b.controls)
		waiting++
	}
	if o.overflowed == b.last && !o.dead { // otherwise what waited has been dropped meanwhile
		o.putBack(b, waiting)
	}
	o.stalled = true
	o.writer.count.stalled.Add(1)
	o.startDrain(own)
}

// countIn counts an entry that was written in part as being in the batch of the next owner.
func (o *Outbox) countIn(b *batch, e entry, control bool) {
	b.entries = append(b.entries, e)
	l, t := &o.data, &b.data
	if control {
		l, t = &o.control, &b.control
	}
	l.held.add(e.frame)
	t.add(e.frame)
}

// putBack makes the entries of the batch from the given one on wait again, ahead of all others.
func (o *Outbox) putBack(b *batch, from int) {
	chunks := &o.pool.chunks
	o.dropIndex() // it knows nothing of what comes back
	controls := slices.DeleteFunc(b.entries[from:max(from, b.controls)], func(e entry) bool {
		return o.superfluous(e.frame) != nil // something like it has come meanwhile
	})
	o.control.putBack(chunks, controls)
	o.data.putBack(chunks, b.entries[max(from, b.controls):])
}

// handOver gives an outbox that can only be written to with blocking writes to a goroutine of its own.
func (o *Outbox) handOver() {
	own := o.pool.batch()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.startDrain(own)
}

// startDrain makes a goroutine the owner. b is the batch that it begins with, which may be empty. What
// waits counts as queued now: it waited for its writer until here, not for the client.
func (o *Outbox) startDrain(b *batch) {
	p := o.pool
	now := p.clock()
	for e := range o.control.all() {
		e.at = now
	}
	for e := range o.data.all() {
		e.at = now
	}
	o.draining, o.oldest = true, now
	if !o.closing && !o.dead {
		o.arm(p.maxAge)
	}
	p.running.Go(func() { o.drain(b) })
}

// drain writes, blocking, until nothing waits any more. It needs no deadline: the outbox's timer closes the
// socket under a write that takes too long.
func (o *Outbox) drain(b *batch) {
	defer o.rescue()
	p := o.pool
	if len(b.buf) > 0 {
		o.write(b)
	}
	for o.next(b, drainBatch) {
		b.encode(o.variant)
		o.write(b)
	}
	p.batches.Put(b)
}

func (o *Outbox) write(b *batch) {
	n, err := o.conn.Write(b.buf)
	if err != nil {
		o.Abort()
		return
	}
	o.writer.count.wrote(len(b.entries), n)
}

// batch returns an empty batch for a goroutine that drains.
func (p *Pool) batch() *batch {
	if b, ok := p.batches.Get().(*batch); ok {
		return b
	}
	return newBatch()
}

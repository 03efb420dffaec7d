package outbox

import (
	"slices"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/replay"
)

// writerPortion and drainPortion are the bytes of recovery in one batch, unless a single frame is larger: live frames
// that arrive during a write wait for at most one portion. A drain goroutine's portion is small enough for a client
// at a few kilobytes per second to accept it well within Options.MaxAge.
const (
	writerPortion = 16 << 10
	drainPortion  = 4 << 10
)

// Replay is a part of the history of one upload.
type Replay = replay.Replay

// Source reads stored messages of uploads. It is called without locks, from the goroutine that owns the outbox.
type Source = replay.Source

// recovery holds the stored messages that a client has requested and that have not been written. They are written
// behind the live frames that were queued before, a portion per batch, so the client's reading speed paces them and
// they do not count against the limits of live frames. Outbox.mu protects it.
type recovery struct {
	replay.Queue
	// exempt is the amount of the frames queued by Release, which the limits of live frames do not include. They are
	// among the next exemptWithin frames of the data queue.
	exempt       amount
	exemptWithin int
	// behind is the number of frames of the data queue that precede the recovery: its answer, and live frames of its
	// uploads.
	behind int
	// final are the final frames of Close, which follow the recovery.
	final []*frame.Frame
}

// Recover queues stored messages of an upload. Unless they are a snapshot, they replace the queued messages of an
// earlier replay of the upload, whose offsets they continue from the client's new position. They are written behind the
// live frames that are queued now, among which may be earlier ones of the upload, and at the client's pace:
// Options.MaxRecoveryBytes limits them instead of MaxMessages and MaxBytes, and messages beyond that are read from the
// source later. Live frames of the upload that are sent afterwards follow them.
//
// The caller must hold the upload's lock, so that the replay and the live frames are contiguous. Recover does not
// block.
func (o *Outbox) Recover(r Replay) Outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.dead {
		return Dropped
	}
	if o.recovery == nil && o.replayDirectly(r.Frames) {
		return Queued
	}
	o.startRecovery().behind = o.data.unwritten.frames
	if !o.recovery.Recover(r) {
		return o.rejectOverLimit()
	}
	o.scheduleRecovery()
	return Queued
}

// CancelRecovery drops the stored and live messages that are queued or unread for an upload in recovery.
// Acknowledgements remain queued, and after Close all that is still to be written.
func (o *Outbox) CancelRecovery(uploadID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.recovery != nil && !o.closing {
		o.recovery.Cancel(uploadID)
		o.finishRecovery()
	}
}

// CancelRecoveries is CancelRecovery for all uploads that a function names. It must not block.
func (o *Outbox) CancelRecoveries(named func(uploadID string) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.recovery != nil && !o.closing {
		o.recovery.CancelAll(named)
		o.finishRecovery()
	}
}

// replayDirectly queues a short replay, such as a snapshot, as live frames. It returns false if the live queue would
// then exceed an eighth of its limits.
func (o *Outbox) replayDirectly(frames []*frame.Frame) bool {
	var size amount
	for _, f := range frames {
		size.add(f)
	}
	limit := amount{o.pool.limit.frames / 8, o.pool.limit.bytes / 8}
	if size.frames == 0 || size.bytes > drainPortion || !o.data.unwritten.fits(size, limit) {
		return false
	}
	for _, f := range frames {
		if !f.For(o.variant) {
			continue
		}
		o.push(queuedFrame{frame: f, enqueued: o.enqueueTime()})
		o.scheduleLocked()
	}
	return true
}

// Hold delays the writing of recoveries until Release. During a hold, Recover without frames makes the live frames of
// an upload follow the answer of Release.
func (o *Outbox) Hold() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closing && !o.dead {
		o.startRecovery().Hold()
	}
}

// Release ends a Hold. It queues the answer, if it is not nil, ahead of all recoveries. The answer does not count
// against the limits of live frames.
func (o *Outbox) Release(answer *frame.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.recovery
	if r == nil || !r.Held() || o.dead {
		return // closed since Hold
	}
	answers := r.Queue.Release()
	if answer != nil {
		answers = append(answers, answer)
	}
	for _, f := range answers {
		size := amount{1, f.Size()}
		if r.exempt.bytes+size.bytes <= o.pool.maxRecovery {
			r.exempt.frames++
			r.exempt.bytes += size.bytes
		} else if !o.data.unwritten.fits(size, o.pool.limit) && !o.tolerates(size) {
			o.rejectOverLimit()
			return
		}
		o.data.push(&o.pool.chunks, queuedFrame{frame: f, enqueued: o.enqueueTime()})
		r.exemptWithin = o.data.unwritten.frames
		r.behind = r.exemptWithin
	}
	o.finishRecovery()
	o.scheduleLocked()
}

// startRecovery returns the outbox's recovery, starting it if there is none.
func (o *Outbox) startRecovery() *recovery {
	if o.recovery == nil {
		o.recovery, _ = o.pool.recoveries.Get().(*recovery)
		if o.recovery == nil {
			o.recovery = &recovery{}
		}
		o.recovery.Init(o.variant, o.pool.maxRecovery)
	}
	return o.recovery
}

// sendInOrder queues a live frame of an upload in recovery behind that recovery. handled is false if the upload is
// not in recovery.
func (o *Outbox) sendInOrder(f *frame.Frame) (outcome Outcome, handled bool) {
	outcome, handled = o.recovery.Send(f, o.stalled || o.draining)
	switch {
	case outcome == Dropped:
		o.rejectOverLimit()
	case handled:
		o.scheduleRecovery()
	}
	return outcome, handled
}

// continueRecovery is called by the owner with mu held and nothing dequeued. It reads unread messages, and returns
// false if only a drain goroutine can do that.
func (o *Outbox) continueRecovery() bool {
	switch r := o.recovery; {
	case o.dead:
	case o.closing && !r.Writable(): // all is written: whatever else it holds must not delay the final frames
		o.endRecovery()
	case o.closing || !r.Unread():
	case !o.draining:
		return false
	default:
		if o.readUnread(); o.recovery != nil {
			o.finishRecovery()
		}
	}
	return true
}

// scheduleRecovery ends the recovery if nothing of it is left, and otherwise puts the outbox on the ready list unless
// it is held.
func (o *Outbox) scheduleRecovery() {
	if o.finishRecovery(); o.recovery != nil && !o.recovery.Held() {
		o.scheduleLocked()
	}
}

// readUnread reads the next messages of backlogs from their sources, as long as there is room. mu is held, and
// released during the reads. Only the drain goroutine may call it.
func (o *Outbox) readUnread() {
	for r := o.recovery; r != nil && r.Unread() && !o.dead && !o.closing; r = o.recovery {
		progress := r.Read(&o.mu)
		if o.recovery != r {
			return
		}
		if r.Failed() {
			o.rejectOverLimit()
		}
		if !progress {
			return // the next message fits only when others have been written
		}
	}
}

// creditRecovery subtracts the written frames of a batch from the recovery and ends it if nothing is left.
func (o *Outbox) creditRecovery(b *batch) {
	r := o.recovery
	if r == nil {
		return
	}
	r.creditLive(b.data.frames)
	if b.recovery == r {
		r.credit(b, len(b.entries))
	}
	o.finishRecovery()
}

// finishRecovery ends the recovery if nothing of it is left. The final frames of Close then follow.
func (o *Outbox) finishRecovery() {
	r := o.recovery
	if !r.Empty() || r.exemptWithin > 0 {
		return
	}
	o.endRecovery()
	*r = recovery{Queue: r.Queue}
	o.pool.recoveries.Put(r)
}

// endRecovery drops the recovery and queues the final frames of Close.
func (o *Outbox) endRecovery() {
	r := o.recovery
	o.recovery = nil
	if r == nil || o.dead {
		return
	}
	for _, f := range r.final {
		o.pushFinal(f)
	}
}

// creditLive counts frames of the data queue as written. It ends the exemption of answers once the last answer is among
// them.
func (r *recovery) creditLive(frames int) {
	r.behind = max(0, r.behind-frames)
	if r.exemptWithin > 0 {
		if r.exemptWithin -= frames; r.exemptWithin <= 0 {
			r.exempt, r.exemptWithin = amount{}, 0
		}
	}
}

// moveTo moves up to a portion of the recovery, in bytes, into the batch, behind its live frames.
func (r *recovery) moveTo(b *batch, portion int) {
	b.recovery = r
	for size := 0; r.Writable(); {
		n := r.First().Size() + b.overhead
		if size > 0 && size+n > portion {
			return
		}
		size += n
		f, skipped, bl := r.Pop()
		b.entries = append(b.entries, queuedFrame{frame: f, skipped: skipped})
		b.backlogs = append(b.backlogs, bl)
	}
}

// credit counts the recovery's entries of a batch up to the given index as written.
func (r *recovery) credit(b *batch, end int) {
	for i := b.live; i < end; i++ {
		r.Written(b.backlogs[i-b.live], b.entries[i].frame)
	}
}

// requeue puts the recovery's entries of a batch from the given index on back. It returns the entries that precede an
// answer in the data queue, and so the others there.
func (r *recovery) requeue(b *batch, from int) (ahead []queuedFrame) {
	for i := len(b.entries) - 1; i >= max(from, b.live); i-- {
		e := b.entries[i]
		if r.Requeue(b.backlogs[i-b.live], e.frame, e.skipped) {
			ahead = slices.Insert(ahead, 0, e)
		}
	}
	r.behind += len(ahead)
	return ahead
}

// writable reports whether a batch can take frames of the recovery.
func (r *recovery) writable() bool { return r != nil && r.Writable() }

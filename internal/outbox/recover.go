package outbox

import (
	"math"

	"github.com/shoal-go/shoal/internal/frame"
)

const (
	// writerPortion and drainPortion are the bytes of recovery in one batch, unless a single frame is larger: live frames
	// that arrive during a write wait for at most one portion. A drain goroutine's portion is small enough for a client
	// at a few kilobytes per second to accept it well within Options.MaxAge.
	writerPortion = 16 << 10
	drainPortion  = 4 << 10
	// extraWithoutOffset is the number of bytes by which frames without an offset may exceed the limit of a recovery: they
	// cannot be read from the history later.
	extraWithoutOffset = 1 << 20
)

// Source reads stored messages of uploads.
type Source interface {
	// Read locks the upload and, while it is locked, calls deliver with the messages of the epoch after the offset,
	// oldest first. If the history no longer holds all of them, it calls deliver with the frames that inform the client
	// and bring it up to date. It is called without locks, from the goroutine that owns the outbox.
	Read(uploadID, epoch string, after uint64, deliver func(frames []*frame.Frame))
}

// Replay is a part of the history of one upload, to be written before the live frames of that upload.
type Replay struct {
	UploadID string
	// Frames are the acknowledgement, if any, and the stored messages, oldest first.
	Frames []*frame.Frame
	// Epoch and After are the position before the first of the messages.
	Epoch string
	After uint64
	// Snapshot: the client has not told that position, so all messages of the upload that are queued or unread precede
	// the frames. Otherwise the frames replace them.
	Snapshot bool
	// Source reads the messages that do not fit in Options.MaxRecoveryBytes when there is room. If it is nil, they close
	// the connection like an overflow.
	Source Source
}

// Recover queues stored messages of an upload. Unless they are a snapshot, they replace the queued messages of an
// earlier replay of the upload, whose offsets they continue from the client's new position. They are written behind the
// live frames that are queued now, among which may be earlier ones of the upload, and at the client's pace:
// Options.MaxRecoveryBytes limits them instead of MaxMessages and MaxBytes, and messages beyond that are read from the
// source later. Live frames of the upload that are sent afterwards follow them.
//
// The caller must hold the upload's lock, so that the replay and the live frames are contiguous. Recover does not
// block.
func (o *Outbox) Recover(replay Replay) Outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.dead {
		return Dropped
	}
	if o.recovery == nil && o.replayDirectly(replay.Frames) {
		return Queued
	}
	r := o.startRecovery()
	earlier := r.backlogs[replay.UploadID]
	if len(replay.Frames) == 0 && (earlier == nil || earlier == orderOnly || replay.Snapshot) {
		if r.holds > 0 && earlier == nil {
			r.backlogs[replay.UploadID] = orderOnly
		}
		o.finishRecovery()
		return Queued
	}
	bl := r.backlog(replay.UploadID)
	r.behind = o.data.unwritten.frames
	if replay.Snapshot && (bl.unread || !bl.frames.empty()) {
		return o.queueSnapshot(bl, replay.Frames)
	}
	r.dropStored(bl, &o.pool.chunks)
	bl.epoch, bl.cursor, bl.source, bl.conflatable = replay.Epoch, replay.After, replay.Source, nil
	limit := o.pool.maxRecovery
	if !o.queueReplay(bl, replay.Frames, limit) || r.bytes > limit+extraWithoutOffset {
		return o.rejectOverLimit()
	}
	if bl.done() && r.holds == 0 { // no frame was for this variant
		r.remove(bl)
		o.finishRecovery()
		return Queued
	}
	o.scheduleRecovery()
	return Queued
}

// queueSnapshot queues an acknowledgement and the newest message, if any, behind the messages of a backlog. While
// messages are unread, the source has the newest one: the acknowledgement then comes before it.
func (o *Outbox) queueSnapshot(bl *backlog, frames []*frame.Frame) Outcome {
	r := o.recovery
	for _, f := range frames {
		switch {
		case !f.For(o.variant), bl.unread && f.Offset() > 0:
		case bl.unread:
			r.bytes += cost(f)
			bl.late = append(bl.late, f)
		default:
			r.push(bl, &o.pool.chunks, queuedFrame{frame: f})
		}
	}
	if r.bytes > o.pool.maxRecovery+extraWithoutOffset {
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
	if r := o.recovery; r != nil && !o.closing {
		if bl := r.backlogs[uploadID]; bl != nil {
			r.cancel(bl, &o.pool.chunks)
		}
		o.finishRecovery()
	}
}

// CancelRecoveries is CancelRecovery for all uploads that a function names. It must not block.
func (o *Outbox) CancelRecoveries(named func(uploadID string) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.recovery
	if r == nil || o.closing {
		return
	}
	for uploadID, bl := range r.backlogs {
		if named(uploadID) {
			r.cancel(bl, &o.pool.chunks)
		}
	}
	o.finishRecovery()
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
		o.startRecovery().holds++
	}
}

// Release ends a Hold. It queues the answer, if it is not nil, ahead of all recoveries. The answer does not count
// against the limits of live frames.
func (o *Outbox) Release(answer *frame.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.recovery
	if r == nil || r.holds == 0 || o.dead {
		return // closed since Hold
	}
	r.holds--
	if answer != nil {
		size := amount{1, answer.Size()}
		if r.exempt.bytes+size.bytes <= o.pool.maxRecovery {
			r.exempt.frames++
			r.exempt.bytes += size.bytes
		} else if !o.data.unwritten.fits(size, o.pool.limit) && !o.tolerates(size) {
			o.rejectOverLimit()
			return
		}
		o.data.push(&o.pool.chunks, queuedFrame{frame: answer, enqueued: o.enqueueTime()})
		r.exemptWithin = o.data.unwritten.frames
		r.behind = r.exemptWithin
	}
	if r.holds == 0 {
		r.removeDone()
		o.finishRecovery()
	}
	o.scheduleLocked()
}

// startRecovery returns the outbox's recovery, starting it if there is none.
func (o *Outbox) startRecovery() *recovery {
	if o.recovery == nil {
		o.recovery, _ = o.pool.recoveries.Get().(*recovery)
		if o.recovery == nil {
			o.recovery = &recovery{backlogs: make(map[string]*backlog)}
		}
	}
	return o.recovery
}

// queueReplay queues the frames without an offset and the messages that fit in the limit in a backlog. It returns
// false if there is no source to read the other messages from.
func (o *Outbox) queueReplay(bl *backlog, frames []*frame.Frame, limit int) bool {
	r := o.recovery
	empty := r.head == nil // then one message of any size is queued, so that the recovery goes on
	for _, f := range frames {
		if !f.For(o.variant) {
			continue
		}
		if f.Offset() > 0 && !empty && r.bytes+cost(f) > limit {
			if bl.source == nil {
				return false
			}
			r.addUnread(bl)
			return true
		}
		if f.Offset() > 0 {
			r.releaseLate(bl, &o.pool.chunks, f.Offset())
		}
		r.push(bl, &o.pool.chunks, queuedFrame{frame: f})
		empty = empty && f.Offset() == 0
	}
	if bl.unread {
		bl.unread = false
		r.unlistUnread(bl)
	}
	r.pushLate(bl, &o.pool.chunks, len(bl.late))
	return true
}

// sendInOrder queues a live frame of an upload in recovery behind that recovery. handled is false if the upload is
// not in recovery.
func (o *Outbox) sendInOrder(f *frame.Frame) (outcome Outcome, handled bool) {
	r := o.recovery
	bl := r.backlogs[f.UploadID()]
	if bl == nil {
		return 0, false
	}
	if bl == orderOnly {
		bl = r.backlog(f.UploadID())
	}
	if bl.unread && f.Offset() > 0 {
		return Queued, true // the source will read it
	}
	if older := bl.conflatable; older != nil && f.Class() == frame.State && f.StateKey() == older.frame.StateKey() &&
		(o.stalled || o.draining) {
		r.bytes += f.Size() - older.frame.Size()
		bl.frames.replace(older, f)
		older.skipped++
		bl.advance(f)
		return Conflated, true
	}
	switch over := r.bytes + cost(f) - o.pool.maxRecovery; {
	case r.bytes == 0 || over <= 0 || f.Offset() == 0 && over <= extraWithoutOffset:
	case f.Offset() == 0 || bl.source == nil:
		return o.rejectOverLimit(), true
	default:
		r.addUnread(bl)
		o.scheduleRecovery()
		return Queued, true
	}
	if bl.unread {
		r.bytes += cost(f)
		bl.late = append(bl.late, f)
		return Queued, true
	}
	e := r.push(bl, &o.pool.chunks, queuedFrame{frame: f})
	if f.Class() == frame.State {
		bl.conflatable = e
	}
	o.scheduleRecovery()
	return Queued, true
}

// continueRecovery is called by the owner with mu held and nothing dequeued. It reads unread messages, and returns
// false if only a drain goroutine can do that.
func (o *Outbox) continueRecovery() bool {
	switch r := o.recovery; {
	case o.dead:
	case o.closing && r.head == nil: // all is written: whatever else it holds must not delay the final frames
		o.endRecovery()
	case len(r.unread) == 0 || r.holds > 0 || o.closing:
	case !o.draining:
		return false
	default:
		if o.readUnread(); o.recovery != nil {
			o.finishRecovery()
		}
	}
	return true
}

// scheduleRecovery puts the outbox on the ready list unless its recovery is held.
func (o *Outbox) scheduleRecovery() {
	if o.recovery.holds == 0 {
		o.scheduleLocked()
	}
}

// readUnread reads the next messages of backlogs from their sources, as long as there is room. mu is held, and
// released during the reads: sources lock uploads, which come before Outbox.mu in the lock order. Only the drain
// goroutine may call it.
func (o *Outbox) readUnread() {
	for r := o.recovery; r != nil && len(r.unread) > 0 && r.holds == 0 && !o.dead && !o.closing; r = o.recovery {
		if r.head != nil && 2*r.bytes > o.pool.maxRecovery {
			return
		}
		bl := r.unread[0]
		epoch, cursor, source, before := bl.epoch, bl.cursor, bl.source, r.bytes
		current := func() bool { // false if the recovery has ended or Recover has replaced the position
			return o.recovery == r && bl.unread && bl.epoch == epoch && bl.cursor == cursor
		}
		delivered := false
		o.mu.Unlock()
		source.Read(bl.uploadID, epoch, cursor, func(frames []*frame.Frame) {
			o.mu.Lock()
			defer o.mu.Unlock()
			delivered = true
			if current() {
				r.unlistUnread(bl)
				limit := o.pool.maxRecovery
				restart := len(frames) > 0 && !frames[0].For(frame.Base)
				switch {
				case restart && o.variant == frame.Base: // which cannot be told that messages are lost
					o.rejectOverLimit()
					return
				case restart:
					limit = math.MaxInt // a new position and the newest message, which belong together
					frames = r.beforeNewPosition(bl, frames)
				}
				o.queueReplay(bl, frames, limit)
			}
		})
		o.mu.Lock()
		if !delivered && current() {
			o.queueReplay(bl, nil, 0) // the upload no longer exists
		}
		if o.recovery != r {
			return
		}
		if bl.done() {
			r.remove(bl)
		}
		if bl.unread && r.bytes == before && r.head != nil {
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
		for i, bl := range b.backlogs {
			r.credit(bl, b.entries[b.live+i].frame)
		}
		r.removeWritten(b)
	}
	o.finishRecovery()
}

// finishRecovery ends the recovery if nothing of it is left. The final frames of Close then follow.
func (o *Outbox) finishRecovery() {
	r := o.recovery
	if len(r.backlogs) > 0 || r.holds > 0 || r.exemptWithin > 0 {
		return
	}
	o.endRecovery()
	*r = recovery{backlogs: r.backlogs}
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

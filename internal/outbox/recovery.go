package outbox

import (
	"math"
	"slices"
	"sync"

	"github.com/shoal-go/shoal/internal/frame"
)

const (
	// writerPortion and drainPortion are the bytes of recovery in one batch, unless a single frame is larger: live frames
	// that arrive during a write wait for at most one portion. A drain goroutine's portion is small enough for a client
	// at a few kilobytes per second to accept it well within Options.MaxAge.
	writerPortion = 16 << 10
	drainPortion  = 4 << 10
	// backlogTurn is the number of bytes after which recovery continues with the next upload, so that an upload with
	// many live frames does not delay the recovery of the others.
	backlogTurn = 16 << 10
	// unsentLimitFrom is the size of a recovery from which on the kernel's buffer of unsent bytes is limited, so that live
	// frames do not wait behind megabytes of recovery in it.
	unsentLimitFrom = 64 << 10
	// extraWithoutOffset is the number of bytes by which frames without an offset may exceed the limit of a recovery: they
	// cannot be read from the history later.
	extraWithoutOffset = 1 << 20
	// recoveryOverhead is added to the size of each frame in a recovery.
	recoveryOverhead = 32
)

// Source reads stored messages of uploads.
type Source interface {
	// Read locks the upload and, while it is locked, calls deliver with the messages of the epoch after the offset,
	// oldest first. If the history no longer holds all of them, it calls deliver with the frames that inform the client and
	// bring it up to date. It is called without locks, from the goroutine that owns the outbox.
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
	// Source reads the messages that do not fit in Options.MaxRecoveryBytes when there is room. If it is nil, they close
	// the connection like an overflow.
	Source Source
}

// recovery holds the stored messages that a client has requested and that have not been written. They are written behind
// the queued live frames, a portion per batch, so the client's reading speed paces them and they do not
// count against the limits of live frames. Outbox.mu protects it.
type recovery struct {
	// backlogs are the uploads with unwritten or unread messages. A live frame of one of them is queued in its backlog.
	backlogs map[string]*backlog
	// head and tail form the round-robin list of the backlogs with queued frames.
	head, tail *backlog
	// unread are the backlogs whose remaining messages are still to be read from their source.
	unread []*backlog
	// bytes is the cost of the unwritten frames of all backlogs.
	bytes int
	// holds counts the calls of Hold without Release: while it is positive, no backlog is written.
	holds int
	// exempt is the amount of the frames queued by Release, which the limits of live frames do not include. They are
	// among the next exemptWithin frames of the data queue.
	exempt       amount
	exemptWithin int
	// final are the final frames of Close, which follow the recovery.
	final []*frame.Frame
	// unsentLimited: the kernel's buffer of unsent bytes is limited for the time of the recovery.
	unsentLimited bool
}

// backlog is the recovery of one upload.
type backlog struct {
	uploadID string
	frames   queue
	// epoch, cursor and source are the position up to which frames have been queued, and the source of later ones.
	epoch  string
	cursor uint64
	source Source
	// unread: messages after the cursor are still to be read. Live frames with an offset are then among them.
	unread bool
	// late are live frames without an offset that came while messages were unread.
	late []*frame.Frame
	// conflatable is the last queued frame if it is a live state.
	conflatable *queuedFrame
	// turn is the number of bytes written since the backlog became the head of the list.
	turn   int
	listed bool
	next   *backlog
}

// orderOnly is the backlog of an upload of which nothing was missed, while the recovery is held: it stands for a backlog that the
// first live frame creates. It is never changed.
var orderOnly = &backlog{}

// done reports whether nothing of the backlog is unwritten or unread.
func (bl *backlog) done() bool {
	return bl.frames.unwritten.frames == 0 && !bl.unread && len(bl.late) == 0
}

func cost(f *frame.Frame) int { return f.Size() + recoveryOverhead }

// Recover queues stored messages of an upload. They are written at the client's pace: Options.MaxRecoveryBytes limits
// them instead of MaxMessages and MaxBytes, and messages beyond that are read from the source later. Live
// frames of the upload that are sent afterwards follow them.
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
	if len(replay.Frames) == 0 {
		if r.holds > 0 && r.backlogs[replay.UploadID] == nil {
			r.backlogs[replay.UploadID] = orderOnly
		}
		o.finishRecovery()
		return Queued
	}
	bl := r.backlog(replay.UploadID)
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

// replayDirectly queues a short replay, such as a snapshot, as live frames. It returns false if the live queue would then
// exceed an eighth of its limits.
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
		e := o.data.push(&o.pool.chunks, queuedFrame{frame: f, enqueued: o.enqueueTime()})
		if o.index != nil {
			o.index.add(e)
		}
		o.scheduleLocked()
	}
	return true
}

// Hold delays the writing of recoveries until Release. Meanwhile Recover orders the live frames of an upload even if none
// of its messages was missed.
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
	if r == nil || r.holds == 0 {
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

// queueReplay queues the frames without an offset and the messages that fit in the limit in a backlog. It returns false if there is no
// source to read the other messages from.
func (o *Outbox) queueReplay(bl *backlog, frames []*frame.Frame, limit int) bool {
	r := o.recovery
	empty := r.head == nil // then one message is queued whatever its size, so that the recovery goes on
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
		r.push(bl, &o.pool.chunks, queuedFrame{frame: f})
		empty = empty && f.Offset() == 0
	}
	if bl.unread {
		bl.unread = false
		r.unlistUnread(bl)
	}
	late := bl.late
	bl.late = nil
	for _, f := range late {
		r.bytes -= cost(f) // push adds it again
		r.push(bl, &o.pool.chunks, queuedFrame{frame: f})
	}
	return true
}

// sendInOrder queues a live frame of an upload in recovery behind that recovery. handled is false if the upload is not in
// recovery.
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
	if older := bl.conflatable; older != nil && f.Class() == frame.State && (o.stalled || o.draining) {
		r.bytes += f.Size() - older.frame.Size()
		bl.frames.replace(older, f)
		older.skipped++
		bl.cursor = max(bl.cursor, f.Offset())
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

// continueRecovery is called by the owner with mu held. It limits the unsent bytes in the kernel for the time of a long recovery
// and reads unread messages. It returns false if only a drain goroutine can do that.
func (o *Outbox) continueRecovery() bool {
	if o.dead {
		return true
	}
	if r := o.recovery; len(r.unread) > 0 && r.holds == 0 && !o.closing {
		if !o.draining {
			return false
		}
		o.readUnread()
	}
	r := o.recovery
	if r == nil || o.dead {
		return true
	}
	switch limited := r.bytes > unsentLimitFrom || r.unsentLimited && len(r.backlogs) > 0; {
	case limited == r.unsentLimited:
	default:
		o.mu.Unlock()
		limitUnsent(o.conn, limited)
		o.mu.Lock()
		if o.recovery == r {
			r.unsentLimited = limited
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
				if len(frames) > 0 && !frames[0].For(frame.Base) {
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
	o.creditExempt(b.data.frames)
	if b.recovery == r {
		for i, bl := range b.backlogs {
			r.credit(bl, b.entries[b.live+i].frame)
		}
		if r.holds == 0 {
			for _, bl := range b.backlogs {
				if bl.done() {
					r.remove(bl)
				}
			}
		}
	}
	o.finishRecovery()
}

// creditExempt ends the exemption of answers once the frames up to the last answer have been written.
func (o *Outbox) creditExempt(frames int) {
	if r := o.recovery; r != nil && r.exemptWithin > 0 {
		if r.exemptWithin -= frames; r.exemptWithin <= 0 {
			r.exempt, r.exemptWithin = amount{}, 0
		}
	}
}

// finishRecovery ends the recovery if nothing of it is left. The final frames of Close then follow.
func (o *Outbox) finishRecovery() {
	r := o.recovery
	if len(r.backlogs) > 0 || r.holds > 0 || r.exemptWithin > 0 || r.unsentLimited && !o.dead {
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

// backlog returns the backlog of an upload, creating it if need be.
func (r *recovery) backlog(uploadID string) *backlog {
	bl := r.backlogs[uploadID]
	if bl == nil || bl == orderOnly {
		bl = &backlog{uploadID: uploadID}
		r.backlogs[uploadID] = bl
	}
	return bl
}

// push queues a frame in a backlog.
func (r *recovery) push(bl *backlog, chunks *sync.Pool, e queuedFrame) *queuedFrame {
	place := bl.frames.push(chunks, e)
	r.bytes += cost(e.frame)
	bl.cursor = max(bl.cursor, e.frame.Offset())
	bl.conflatable = nil
	r.list(bl)
	return place
}

// beforeNewPosition moves acknowledgements that came while messages were unread before the frames of a new position: they
// announce older positions.
func (r *recovery) beforeNewPosition(bl *backlog, frames []*frame.Frame) []*frame.Frame {
	var acknowledgements []*frame.Frame
	bl.late = slices.DeleteFunc(bl.late, func(f *frame.Frame) bool {
		if f.For(frame.Base) {
			return false
		}
		acknowledgements = append(acknowledgements, f)
		r.bytes -= cost(f)
		return true
	})
	return append(acknowledgements, frames...)
}

// credit counts a frame of a backlog as written.
func (r *recovery) credit(bl *backlog, f *frame.Frame) {
	bl.frames.unwritten.subtract(amount{1, f.Size()})
	r.bytes -= cost(f)
}

// list appends a backlog to the round-robin list if it is not in it.
func (r *recovery) list(bl *backlog) {
	if bl.listed {
		return
	}
	bl.listed, bl.turn, bl.next = true, 0, nil
	if r.tail == nil {
		r.head = bl
	} else {
		r.tail.next = bl
	}
	r.tail = bl
}

// unlistHead removes the first backlog from the round-robin list.
func (r *recovery) unlistHead() *backlog {
	bl := r.head
	r.head = bl.next
	if r.head == nil {
		r.tail = nil
	}
	bl.listed, bl.next = false, nil
	return bl
}

func (r *recovery) addUnread(bl *backlog) {
	bl.conflatable = nil
	if !bl.unread {
		bl.unread = true
		r.unread = append(r.unread, bl)
	}
}

func (r *recovery) unlistUnread(bl *backlog) {
	for i, other := range r.unread {
		if other == bl {
			r.unread = append(r.unread[:i], r.unread[i+1:]...)
			break
		}
	}
	bl.unread = false
}

// dropUnread drops the messages that are still to be read.
func (r *recovery) dropUnread() {
	for _, bl := range r.unread {
		for _, f := range bl.late {
			r.bytes -= cost(f)
		}
		bl.unread, bl.late = false, nil
		if bl.done() {
			r.remove(bl)
		}
	}
	r.unread = nil
}

func (r *recovery) remove(bl *backlog) { delete(r.backlogs, bl.uploadID) }

func (r *recovery) removeDone() {
	for uploadID, bl := range r.backlogs {
		if bl.done() {
			delete(r.backlogs, uploadID)
		}
	}
}

// writable reports whether a batch can take frames of the recovery.
func (r *recovery) writable() bool { return r != nil && r.head != nil && r.holds == 0 }

// moveTo moves up to a portion of the recovery, in bytes, into the batch, behind its live frames.
func (r *recovery) moveTo(b *batch, portion int, chunks *sync.Pool) {
	b.recovery = r
	for size := 0; r.head != nil; {
		bl := r.head
		e := bl.frames.first()
		n := e.frame.Size()
		if size > 0 && size+n > portion {
			return
		}
		if e == bl.conflatable {
			bl.conflatable = nil
		}
		b.entries = append(b.entries, *e)
		b.backlogs = append(b.backlogs, bl)
		bl.frames.pop(chunks)
		size += n
		bl.turn += n
		switch {
		case bl.frames.empty():
			r.unlistHead()
		case bl.turn >= backlogTurn:
			r.list(r.unlistHead())
		}
	}
}

// requeue puts the recovery's entries of a batch from the given index on back at the front of their backlogs.
func (r *recovery) requeue(b *batch, from int, chunks *sync.Pool) {
	for i := len(b.entries) - 1; i >= from; i-- {
		bl := b.backlogs[i-b.live]
		bl.conflatable = nil
		bl.frames.pushFront(chunks, b.entries[i:i+1])
		r.bytes += cost(b.entries[i].frame)
		if !bl.listed {
			bl.listed, bl.next = true, r.head
			if r.head = bl; r.tail == nil {
				r.tail = bl
			}
		}
	}
}

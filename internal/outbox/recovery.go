package outbox

import (
	"slices"
	"sync"

	"github.com/shoal-go/shoal/internal/frame"
)

// recoveryOverhead is added to the size of each frame in a recovery.
const recoveryOverhead = 32

// backlogTurn is the number of bytes after which recovery continues with the next upload, so that an upload with
// many live frames does not delay the recovery of the others.
const backlogTurn = 16 << 10

// recovery holds the stored messages that a client has requested and that have not been written. They are written
// behind the live frames that were queued before, a portion per batch, so the client's reading speed paces them and
// they do not count against the limits of live frames. Outbox.mu protects it.
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
	// behind is the number of frames of the data queue that precede the recovery: its answer, and live frames of its
	// uploads.
	behind int
	// final are the final frames of Close, which follow the recovery.
	final []*frame.Frame
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

// orderOnly stands for the backlog of an upload without missed messages while the recovery is held. The first live
// frame replaces it by a real backlog. It is never changed.
var orderOnly = &backlog{}

// done reports whether nothing of the backlog is unwritten or unread.
func (bl *backlog) done() bool {
	return bl.frames.unwritten.frames == 0 && !bl.unread && len(bl.late) == 0
}

func cost(f *frame.Frame) int { return f.Size() + recoveryOverhead }

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
	bl.advance(e.frame)
	bl.conflatable = nil
	r.list(bl)
	return place
}

// advance moves the backlog's position behind a frame. Offsets start over in a new epoch, which an acknowledgement
// announces.
func (bl *backlog) advance(f *frame.Frame) {
	offset := f.Offset()
	if at, acknowledges := f.Start(); acknowledges {
		offset = at.Offset
	}
	if epoch := f.Epoch(); epoch != "" && epoch != bl.epoch {
		bl.epoch, bl.cursor = epoch, offset
	}
	bl.cursor = max(bl.cursor, offset)
}

// releaseLate queues the late acknowledgements of positions before an offset, and the late frames before them. A client
// that gets a position must have got, or get before, all messages up to there.
func (r *recovery) releaseLate(bl *backlog, chunks *sync.Pool, offset uint64) {
	due := 0
	for i, f := range bl.late {
		if at, acknowledges := f.Start(); acknowledges && at.Offset < offset {
			due = i + 1
		}
	}
	r.pushLate(bl, chunks, due)
}

// pushLate queues a number of late frames.
func (r *recovery) pushLate(bl *backlog, chunks *sync.Pool, n int) {
	for _, f := range bl.late[:n] {
		r.bytes -= cost(f) // push adds it again
		r.push(bl, chunks, queuedFrame{frame: f})
	}
	bl.late = slices.Delete(bl.late, 0, n)
}

// beforeNewPosition moves acknowledgements that came while messages were unread before the frames of a new position:
// they announce older positions.
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

// dropStored drops the queued messages with an offset, which the replay that comes next contains where the client needs
// them: behind a new acknowledgement, their offsets would go back. The late ones precede that replay.
func (r *recovery) dropStored(bl *backlog, chunks *sync.Pool) {
	r.pushLate(bl, chunks, len(bl.late))
	if bl.frames.empty() {
		return
	}
	r.unlist(bl)
	for _, e := range bl.frames.popAll(nil, chunks) {
		r.credit(bl, e.frame)
		if e.frame.Offset() == 0 {
			r.push(bl, chunks, e)
		}
	}
}

// cancel drops the messages of a backlog.
func (r *recovery) cancel(bl *backlog, chunks *sync.Pool) {
	if bl == orderOnly {
		return
	}
	r.unlistUnread(bl)
	r.keepAcknowledgements(bl, chunks)
	if bl.done() && r.holds == 0 {
		r.remove(bl)
	}
}

// keepAcknowledgements drops all messages of a backlog that the owner has not dequeued.
func (r *recovery) keepAcknowledgements(bl *backlog, chunks *sync.Pool) {
	r.unlist(bl)
	queued := bl.frames.popAll(nil, chunks)
	for _, f := range bl.late {
		r.bytes -= cost(f)
		if !f.For(frame.Base) {
			bl.frames.unwritten.add(f) // credit subtracts it
			r.bytes += cost(f)
			queued = append(queued, queuedFrame{frame: f})
		}
	}
	bl.late = nil
	epoch, cursor := bl.epoch, bl.cursor // the dropped messages are not to be read again
	for _, e := range queued {
		r.credit(bl, e.frame)
		if !e.frame.For(frame.Base) {
			r.push(bl, chunks, e)
		}
	}
	bl.epoch, bl.cursor, bl.conflatable = epoch, cursor, nil
}

// unlist removes a backlog from the round-robin list.
func (r *recovery) unlist(bl *backlog) {
	if !bl.listed {
		return
	}
	var previous *backlog
	for other := r.head; other != bl; other = other.next {
		previous = other
	}
	if previous == nil {
		r.unlistHead()
		return
	}
	previous.next = bl.next
	if r.tail == bl {
		r.tail = previous
	}
	bl.listed, bl.next = false, nil
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

// remove removes a backlog. It has no effect if another one has replaced it, after a cancelled recovery.
func (r *recovery) remove(bl *backlog) {
	if r.backlogs[bl.uploadID] == bl {
		delete(r.backlogs, bl.uploadID)
	}
}

// removeWritten removes the backlogs of a batch of which nothing is left, unless the recovery is held.
func (r *recovery) removeWritten(b *batch) {
	if r.holds > 0 {
		return
	}
	for _, bl := range b.backlogs {
		if bl.done() {
			r.remove(bl)
		}
	}
}

func (r *recovery) removeDone() {
	for uploadID, bl := range r.backlogs {
		if bl.done() {
			delete(r.backlogs, uploadID)
		}
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

// writable reports whether a batch can take frames of the recovery.
func (r *recovery) writable() bool { return r != nil && r.head != nil && r.holds == 0 }

// moveTo moves up to a portion of the recovery, in bytes, into the batch, behind its live frames.
func (r *recovery) moveTo(b *batch, portion int, chunks *sync.Pool) {
	b.recovery = r
	for size := 0; r.head != nil; {
		bl := r.head
		e := bl.frames.first()
		n := e.frame.Size() + b.overhead
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

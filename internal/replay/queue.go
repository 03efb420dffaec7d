package replay

import (
	"math"
	"slices"

	"github.com/shoal-go/shoal/internal/frame"
)

const (
	// overhead is added to the size of each frame of a queue.
	overhead = 32
	// extraWithoutOffset is the number of bytes by which frames without an offset may exceed the limit: they cannot be
	// read from the history later.
	extraWithoutOffset = 1 << 20
	// NoLimit is a limit that no queue reaches.
	NoLimit = math.MaxInt / 2
)

// Source reads stored messages of uploads.
type Source interface {
	// Read locks the upload and, while it is locked, calls deliver with the messages of the epoch after the offset,
	// oldest first. If the history no longer holds all of them, it calls deliver with an acknowledgement of the new
	// position and the newest message. If the upload is not known, it does not call deliver.
	Read(uploadID, epoch string, after uint64, deliver func(frames []*frame.Frame))
}

// Replay is a part of the history of one upload, to be written before the live frames of that upload.
type Replay struct {
	UploadID string
	// Frames are the acknowledgement, if any, and the stored messages, oldest first.
	Frames []*frame.Frame
	// Snapshot: the client has not told its position, so all messages of the upload that are queued or unread precede
	// the frames. Otherwise the frames replace them.
	Snapshot bool
	// Source reads the messages that exceed the limit when there is room. If it is nil, Recover fails instead.
	Source Source
}

// Queue holds the stored messages of one connection. Its owner's mutex protects it. An owner that closes the connection
// forgets it, also during Read.
type Queue struct {
	// backlogs are the uploads with unwritten or unread messages. While the queue is held, those without messages are
	// in it too, since their live messages must not precede the answer: with nil, until the first one.
	backlogs map[string]*Backlog
	// turns are the backlogs with queued frames, in the order in which they are written, unread those with messages
	// that are still to be read.
	turns, unread []*Backlog
	// source has the messages of the uploads without a backlog.
	source Source
	// bytes is the cost of the unwritten frames of all backlogs.
	bytes, limit int
	// holds counts the calls of Hold without Release: while it is positive, no frame is written.
	holds int
	// ahead are the frames of replaced replays that precede the answer of a hold.
	ahead   []*frame.Frame
	variant frame.Variant
	// failed: a frame fitted nowhere, or the client cannot be notified of lost messages.
	failed bool
}

// Backlog is the part of one upload.
type Backlog struct {
	uploadID string
	source   Source
	// entries[first:] are the queued frames. The owner is writing those before; writing is their number.
	entries        []entry
	first, writing int
	// epoch and after are the position before the first unread message. Live messages are then unread too, and late are
	// the live frames without an offset.
	epoch string
	after uint64
	late  []*frame.Frame
	// turn is the number of bytes written since the backlog became the first in turns.
	turn           int
	listed, unread bool
	// replaced: the stored messages that are being written are no longer wanted; canceled: nor are the other messages;
	// answered: an answer is queued, or will be, that the frames without an offset precede.
	replaced, canceled, answered bool
}

// entry is a queued frame.
type entry struct {
	frame *frame.Frame
	// skipped is the number of older states that the frame has replaced.
	skipped uint32
	live    bool
}

// Init makes q an empty queue for frames of a variant, which holds a number of bytes. It reuses the memory of q.
func (q *Queue) Init(variant frame.Variant, limit int) {
	clear(q.backlogs)
	*q = Queue{backlogs: q.backlogs, variant: variant, limit: limit}
}

// Recover queues a replay, behind the queued frames of its upload or in their place. It returns false if the connection
// must be closed, since a frame fits nowhere.
func (q *Queue) Recover(r Replay) bool {
	b, found := q.backlogs[r.UploadID]
	if len(r.Frames) == 0 && (b == nil || r.Snapshot) {
		if q.holds > 0 && !found {
			q.source = r.Source
			q.add(r.UploadID, nil)
		}
		return true
	}
	if b == nil {
		b = &Backlog{uploadID: r.UploadID}
		q.add(r.UploadID, b)
	}
	b.source = r.Source
	if !r.Snapshot {
		// Messages of an earlier replay are in the new one as far as the client needs them: behind a new position, their
		// offsets would go back. The frames without an offset precede that position, but for one that the replay has too.
		q.keep(b, func(f *frame.Frame) bool {
			if f.Offset() > 0 || slices.Contains(r.Frames, f) {
				return false
			}
			if q.holds > 0 {
				q.ahead = append(q.ahead, f)
			}
			return q.holds == 0
		})
		b.answered = b.replaced && (b.answered || q.holds > 0)
	}
	b.entries = slices.Grow(b.entries, len(r.Frames))
	for _, f := range r.Frames {
		q.queue(b, f, q.limit)
	}
	q.end(b)
	return !q.failed
}

// Send queues a live frame behind the messages of its upload. handled is false if the queue has no backlog for it. The
// outcome is frame.Dropped if the connection must be closed. slow: a newer state replaces the upload's last frame if it
// is a live state with the same key.
func (q *Queue) Send(f *frame.Frame, slow bool) (outcome frame.Outcome, handled bool) {
	b, found := q.backlogs[f.UploadID()]
	if !found {
		return 0, false
	}
	if b == nil {
		b = &Backlog{uploadID: f.UploadID(), source: q.source}
		q.add(b.uploadID, b)
	}
	if b.unread && f.For(q.variant) && b.supersededBy(f) {
		// The messages to be read are no longer in the history, and all of its new ones follow as live frames.
		q.failed = q.failed || q.variant == frame.Base
		q.stopReading(b)
		q.queueLate(b, len(b.late))
	}
	if slow && q.replaceLast(b, f) {
		return frame.Conflated, true
	}
	q.queue(b, f, q.limit)
	if q.failed {
		return frame.Dropped, true
	}
	if n := len(b.entries); n > b.first && b.entries[n-1].frame == f {
		b.entries[n-1].live = true
	}
	return frame.Queued, true
}

// supersededBy reports whether a live frame begins a history in the place of the one to be read.
func (b *Backlog) supersededBy(f *frame.Frame) bool {
	_, acknowledges := f.Start()
	return acknowledges || f.Offset() > 0 && (f.Epoch() != b.epoch || f.Offset() <= b.after)
}

// replaceLast puts a state in the place of the last queued frame of its upload, if that may be replaced.
func (q *Queue) replaceLast(b *Backlog, f *frame.Frame) bool {
	if b.unread || !b.listed || f.Class() != frame.State {
		return false
	}
	last := &b.entries[len(b.entries)-1]
	growth := f.Size() - last.frame.Size()
	if !last.live || last.frame.Class() != frame.State || last.frame.StateKey() != f.StateKey() ||
		growth > 0 && q.bytes+growth > q.limit {
		return false
	}
	q.bytes += growth
	last.frame = f
	last.skipped++
	return true
}

// queue queues a frame of an upload, or leaves it to the source if it exceeds the limit. The only frame never does, so
// that the recovery goes on.
func (q *Queue) queue(b *Backlog, f *frame.Frame, limit int) {
	stored := f.Offset() > 0 && b.source != nil
	if f.Offset() == 0 {
		limit += extraWithoutOffset
	}
	fits := len(q.turns) == 0 || q.bytes+cost(f) <= limit
	switch {
	case !f.For(q.variant), b.unread && stored:
	case !fits && stored:
		b.unread, b.epoch, b.after = true, f.Epoch(), f.Offset()-1
		q.unread = append(q.unread, b)
	case !fits:
		q.failed = true
	case b.unread:
		q.bytes += cost(f)
		b.late = append(b.late, f)
	default:
		q.push(b, entry{frame: f})
	}
}

// Cancel drops the messages of an upload that are queued or unread. Acknowledgements remain queued.
func (q *Queue) Cancel(uploadID string) {
	if b := q.backlogs[uploadID]; b != nil {
		q.keep(b, func(f *frame.Frame) bool { return f.Offset() == 0 && !f.For(frame.Base) })
		b.canceled = b.replaced
		q.end(b)
	}
}

// CancelAll is Cancel for all uploads that a function names.
func (q *Queue) CancelAll(named func(uploadID string) bool) {
	for uploadID := range q.backlogs {
		if named(uploadID) {
			q.Cancel(uploadID)
		}
	}
}

// DropUnread drops the messages that are still to be read, and the late frames, whose positions the client would not
// have reached.
func (q *Queue) DropUnread() {
	for _, b := range slices.Clone(q.unread) {
		for _, f := range b.late {
			q.bytes -= cost(f)
		}
		b.late = nil
		q.stopReading(b)
		q.end(b)
	}
}

// Hold delays the writing of all frames until Release.
func (q *Queue) Hold() { q.holds++ }

// Release ends a Hold. It returns frames that precede the answer.
func (q *Queue) Release() (ahead []*frame.Frame) {
	ahead, q.ahead = q.ahead, nil
	q.holds--
	for uploadID, b := range q.backlogs {
		if q.holds == 0 && (b == nil || b.done()) {
			delete(q.backlogs, uploadID)
		}
	}
	return ahead
}

// Held reports whether a Hold has not ended.
func (q *Queue) Held() bool { return q.holds > 0 }

// Empty reports whether nothing is unwritten or unread, and nothing held. It is true of nil.
func (q *Queue) Empty() bool { return q == nil || len(q.backlogs) == 0 && q.holds == 0 }

// Pending reports whether frames are unwritten or unread, and not held. It is false of nil.
func (q *Queue) Pending() bool { return !q.Empty() && q.holds == 0 }

// Bytes returns the cost of the unwritten frames.
func (q *Queue) Bytes() int { return q.bytes }

// Failed reports whether the connection must be closed: a frame fitted nowhere, or messages were lost and the client
// cannot be notified.
func (q *Queue) Failed() bool { return q.failed }

func cost(f *frame.Frame) int { return f.Size() + overhead }

// add sets the backlog of an upload.
func (q *Queue) add(uploadID string, b *Backlog) {
	if q.backlogs == nil {
		q.backlogs = make(map[string]*Backlog)
	}
	q.backlogs[uploadID] = b
}

// done reports whether nothing of the backlog is unwritten or unread.
func (b *Backlog) done() bool { return !b.listed && !b.unread && b.writing == 0 }

// end removes a backlog that is done, unless an answer has to precede its live frames.
func (q *Queue) end(b *Backlog) {
	if q.holds == 0 && b.done() {
		delete(q.backlogs, b.uploadID)
	}
}

// keep drops the queued frames of a backlog that fail a test, and all unread messages.
func (q *Queue) keep(b *Backlog, test func(*frame.Frame) bool) {
	q.stopReading(b)
	q.queueLate(b, len(b.late))
	b.entries = slices.DeleteFunc(b.entries[b.first:], func(e entry) bool {
		drop := !test(e.frame)
		if drop {
			q.bytes -= cost(e.frame)
		}
		return drop
	})
	b.first, b.replaced = 0, b.writing > 0
	if b.listed && len(b.entries) == 0 {
		q.turns, b.listed = without(q.turns, b), false
	}
}

// stopReading removes a backlog from those to be read.
func (q *Queue) stopReading(b *Backlog) {
	if b.unread {
		q.unread, b.unread = without(q.unread, b), false
	}
}

// without removes a backlog from a list.
func without(list []*Backlog, b *Backlog) []*Backlog {
	i := slices.Index(list, b)
	return slices.Delete(list, i, i+1)
}

// queueLate queues a number of late frames.
func (q *Queue) queueLate(b *Backlog, n int) {
	for _, f := range b.late[:n] {
		q.bytes -= cost(f) // push adds it again
		q.push(b, entry{frame: f})
	}
	b.late = slices.Delete(b.late, 0, n)
}

// push appends a frame to a backlog.
func (q *Queue) push(b *Backlog, e entry) {
	if n := len(b.entries); n == cap(b.entries) && 2*b.first >= n {
		n = copy(b.entries, b.entries[b.first:])
		clear(b.entries[n:])
		b.entries, b.first = b.entries[:n], 0
	}
	b.entries = append(b.entries, e)
	q.bytes += cost(e.frame)
	if !b.listed {
		b.listed, b.turn = true, 0
		q.turns = append(q.turns, b)
	}
}

package replay

import (
	"slices"
	"sync"

	"github.com/shoal-go/shoal/internal/frame"
)

// turnBytes is the number of bytes after which the next upload is written, so that an upload with many live frames does
// not delay the others.
const turnBytes = 16 << 10

// Writable reports whether Pop has a frame.
func (q *Queue) Writable() bool { return q.holds == 0 && len(q.turns) > 0 }

// First returns the frame that Pop will remove. There must be one.
func (q *Queue) First() *frame.Frame { return q.turns[0].entries[q.turns[0].first].frame }

// Pop removes the next frame. There must be one, and the owner must call Written or Requeue with it.
func (q *Queue) Pop() (f *frame.Frame, skipped uint32, b *Backlog) {
	b = q.turns[0]
	e := b.entries[b.first]
	b.entries[b.first] = entry{} // releases the frame to the garbage collector
	b.first++
	b.writing++
	b.turn += e.frame.Size()
	if empty := b.first == len(b.entries); empty || b.turn >= turnBytes {
		q.turns, b.turn, b.listed = slices.Delete(q.turns, 0, 1), 0, !empty
		if !empty {
			q.turns = append(q.turns, b)
		}
	}
	return e.frame, e.skipped, b
}

// Written counts a frame from Pop as written.
func (q *Queue) Written(b *Backlog, f *frame.Frame) {
	q.bytes -= cost(f)
	q.settle(b)
}

// Requeue puts a frame from Pop back in its place. Of several, the last one must be put back first. It drops a frame
// that Recover or Cancel would have dropped. If ahead is true the frame has left the queue: it precedes an answer that
// has been queued since, and so the owner has to write it first.
func (q *Queue) Requeue(b *Backlog, f *frame.Frame, skipped uint32) (ahead bool) {
	if dropped := b.replaced && b.dropsReplaced(f); dropped || b.answered {
		q.Written(b, f)
		return !dropped
	}
	if b.first == 0 {
		b.entries, b.first = slices.Insert(b.entries, 0, entry{}), 1
	}
	b.first--
	b.entries[b.first] = entry{frame: f, skipped: skipped}
	if !b.listed {
		b.listed = true
		q.turns = slices.Insert(q.turns, 0, b)
	}
	q.settle(b)
	return false
}

// dropsReplaced reports whether a frame that was being written when its replay was replaced or cancelled is dropped:
// its successor brings it again, or the upload is no longer followed.
func (b *Backlog) dropsReplaced(f *frame.Frame) bool {
	return f.Offset() > 0 || b.canceled && f.For(frame.Base) ||
		slices.ContainsFunc(b.entries[b.first:], func(e entry) bool { return e.frame == f })
}

// settle counts a frame as no longer being written.
func (q *Queue) settle(b *Backlog) {
	if b.writing--; b.writing == 0 {
		b.replaced, b.canceled, b.answered = false, false, false
	}
	q.end(b)
}

// Unread reports whether Read should be called: messages are unread, and there is room for some.
func (q *Queue) Unread() bool {
	return len(q.unread) > 0 && q.holds == 0 && !q.failed && (len(q.turns) == 0 || 2*q.bytes <= q.limit)
}

// Read reads unread messages of one upload. It unlocks mu, the owner's mutex, during that; other goroutines may then
// call all methods but Read. It returns false if the next message does not fit.
func (q *Queue) Read(mu sync.Locker) bool {
	b := q.unread[0]
	source, epoch, after := b.source, b.epoch, b.after
	current := func() bool { return b.unread && b.epoch == epoch && b.after == after }
	delivered := false
	mu.Unlock()
	source.Read(b.uploadID, epoch, after, func(frames []*frame.Frame) {
		mu.Lock()
		defer mu.Unlock()
		delivered = true
		if current() {
			q.queueRead(b, frames)
		}
	})
	mu.Lock()
	if !delivered && current() {
		q.queueRead(b, nil) // the upload no longer exists
	}
	return !current()
}

// queueRead queues frames that a source has delivered, and then the late ones, unless there is more to be read.
func (q *Queue) queueRead(b *Backlog, frames []*frame.Frame) {
	q.stopReading(b)
	limit := q.limit
	if len(frames) > 0 && !frames[0].For(frame.Base) {
		// A new position and the newest message belong together; late frames are older. A client without positions cannot
		// be notified that messages are lost.
		q.failed = q.failed || q.variant == frame.Base
		limit = NoLimit
		q.queueLate(b, len(b.late))
	}
	for _, f := range frames {
		if f.Offset() > 0 {
			q.queueLate(b, b.due(f.Offset()))
		}
		if q.queue(b, f, limit); b.unread {
			return
		}
	}
	q.queueLate(b, len(b.late))
	q.end(b)
}

// due returns the number of late frames that precede a message: the acknowledgements of positions before its offset and
// the frames before them. A client that gets a position must have got, or get before, all messages up to there.
func (b *Backlog) due(offset uint64) (n int) {
	for i, f := range b.late {
		if at, acknowledges := f.Start(); acknowledges && at.Offset < offset {
			n = i + 1
		}
	}
	return n
}

package outqueue

import (
	"time"

	"github.com/shoal-go/shoal/internal/replay"
	"github.com/shoal-go/shoal/manager"
)

// Replay queues stored messages of an upload, which Next returns in turn with the live messages of other uploads. They
// do not count against MaxMessages. Up to MaxBytes of them are queued; the others are read when Next needs them.
func (q *Queue) Replay(r manager.Replay) manager.Outcome {
	q.lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return manager.Dropped
	}
	if !q.replays.Pending() {
		q.progress = time.Now()
	}
	q.behind = q.base + len(q.data)
	part := replay.Replay{UploadID: r.UploadID, Frames: r.Frames, Snapshot: r.Snapshot, Source: r.Source}
	if !q.startReplays().Recover(part) {
		return q.overflow()
	}
	if q.replays.Pending() {
		q.watchAge()
		q.notify()
	}
	return manager.Queued
}

// CancelReplay drops the messages of an upload that is being replayed, but not acknowledgements. It has no
// effect after Close.
func (q *Queue) CancelReplay(uploadID string) {
	q.lock()
	defer q.mu.Unlock()
	if q.closed == nil && q.replays != nil {
		q.replays.Cancel(uploadID)
	}
}

// HoldReplays delays replays until ReleaseReplays.
func (q *Queue) HoldReplays() {
	q.lock()
	defer q.mu.Unlock()
	if q.closed == nil {
		q.startReplays().Hold()
	}
}

// ReleaseReplays queues the answer, of any size, ahead of the replays that have waited for it. nil: no answer.
func (q *Queue) ReleaseReplays(answer *manager.Frame) {
	q.lock()
	defer q.mu.Unlock()
	if q.closed != nil || q.replays == nil {
		return
	}
	answers := q.replays.Release()
	if q.answers >= maxControl {
		q.overflow()
		return
	}
	if answer != nil && answer.For(q.opt.Variant) {
		answers = append(answers, answer)
	}
	q.progress = time.Now()
	q.answers += len(answers)
	for _, f := range answers {
		q.push(entry{frame: f, queued: q.progress, answer: true})
	}
	q.behind = q.base + len(q.data)
	q.watchAge()
	q.notify()
}

// The functions below are called with mu held.

// startReplays returns the replays, and creates them if need be.
func (q *Queue) startReplays() *replay.Queue {
	if q.replays == nil {
		limit := q.opt.MaxBytes
		if limit < 0 {
			limit = replay.NoLimit
		}
		q.replays = new(replay.Queue)
		q.replays.Init(q.opt.Variant, limit)
	}
	return q.replays
}

// sendBehind queues a live message behind the replay of its upload. handled is false if it has no replay.
func (q *Queue) sendBehind(f *manager.Frame, now time.Time) (outcome manager.Outcome, handled bool) {
	outcome, handled = q.replays.Send(f, q.underPressure(now))
	switch {
	case outcome == manager.Dropped:
		q.overflow()
	case handled:
		q.watchAge()
		q.notify()
	}
	return outcome, handled
}

// nextReplay reports whether a message of a replay may be returned, and reads the next ones if there is room.
func (q *Queue) nextReplay() bool {
	r := q.replays
	if r.Empty() {
		q.replays = nil
		return false
	}
	q.progress = time.Now()
	for r == q.replays && r.Unread() && r.Read(&q.mu) { // it is forgotten if the queue is closed during Read
	}
	if r == q.replays && r.Failed() {
		q.overflow()
	}
	return r == q.replays && r.Writable() && (q.head == len(q.data) || q.base+q.head >= q.behind)
}

// popReplay returns the next message of a replay.
func (q *Queue) popReplay(now time.Time) entry {
	f, skipped, backlog := q.replays.Pop()
	q.replays.Written(backlog, f)
	q.sending, q.progress = amount{}, now
	q.watchAge()
	return entry{frame: f, skipped: skipped, queued: now}
}

// closeReplays keeps the queued messages of the replays: the client continues from there when it returns. It drops
// replays that wait for an answer.
func (q *Queue) closeReplays() {
	switch r := q.replays; {
	case r == nil:
	case r.Held():
		q.replays = nil
	default:
		r.DropUnread()
	}
}

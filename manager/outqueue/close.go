package outqueue

import (
	"time"

	"github.com/shoal-go/shoal/manager"
)

// Close refuses further messages. Next returns the queued messages, then a *ClosedError with the reason. Further
// calls have no effect.
func (q *Queue) Close(reason manager.CloseReason) {
	q.lock()
	defer q.mu.Unlock()
	if q.closed == nil {
		if reason.Code == 0 {
			reason.Code = manager.NormalClosure.Code
		}
		q.closed = &reason
		q.closeReplays()
		q.notify()
	}
}

// Abort drops the queued messages and ends the connection: Next returns a *ClosedError.
func (q *Queue) Abort() {
	q.lock()
	defer q.mu.Unlock()
	if q.closed == nil {
		q.closed = &manager.CloseReason{Code: manager.NormalClosure.Code}
	}
	q.drop()
	q.end()
	q.notify()
}

// Done returns a channel that is closed when Next has returned a *ClosedError, or Abort was called.
func (q *Queue) Done() <-chan struct{} {
	q.lock()
	defer q.mu.Unlock()
	return q.done
}

// TracksPositions reports whether the client knows the positions of its uploads.
func (q *Queue) TracksPositions() bool {
	q.lock()
	defer q.mu.Unlock()
	return q.opt.Variant == manager.VariantV1
}

// The functions below are called with mu held.

// overflow closes a queue whose consumer is too slow.
func (q *Queue) overflow() manager.Outcome {
	reason := manager.SlowConsumer
	q.closed = &reason
	q.drop()
	q.notify()
	return manager.Dropped
}

func (q *Queue) drop() {
	q.control, q.data, q.head, q.removed, q.uploads = nil, nil, 0, 0, nil
	q.queued = q.sending
	q.replays, q.answers = nil, 0
	q.stopTimer()
}

func (q *Queue) end() {
	q.stopTimer()
	if !q.ended {
		q.ended = true
		close(q.done)
	}
}

func (q *Queue) notify() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// watchAge sets the timer that closes the queue when its oldest message is too old.
func (q *Queue) watchAge() {
	if q.timer == nil && q.opt.MaxAge > 0 {
		q.timer = time.AfterFunc(q.opt.MaxAge, q.checkAge)
	}
}

func (q *Queue) stopTimer() {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
}

// checkAge is called by the timer, without mu.
func (q *Queue) checkAge() {
	q.lock()
	defer q.mu.Unlock()
	if q.timer == nil { // stopped too late
		return
	}
	q.timer = nil
	age := q.age(time.Now())
	switch {
	case q.closed != nil || q.idle():
	case age >= q.opt.MaxAge:
		q.overflow()
	default:
		q.timer = time.AfterFunc(q.opt.MaxAge-age, q.checkAge)
	}
}

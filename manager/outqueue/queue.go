package outqueue

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/shoal/internal/replay"
	"github.com/shoal-go/shoal/manager"
)

// burstAge is how long the oldest message may wait before its consumer counts as slow.
const burstAge = time.Second

// maxControl bounds the queued control messages.
const maxControl = 64

// Options configure a Queue. 0 is the documented default, a negative value no limit.
type Options struct {
	// Variant is the form of the connection: with the default, manager.VariantBase, it gets no acknowledgements.
	Variant manager.Variant
	// MaxBytes (0: 1 MiB) and MaxMessages (0: 1024) limit the messages that are queued or being sent; negative: no limit.
	// A burst may exceed them for a second, up to 16 times MaxBytes and 64 times MaxMessages. Stored messages that a
	// client has missed do not count: MaxBytes of them are queued, and the others read from the history later.
	MaxBytes    int
	MaxMessages int
	// MaxAge limits the time from queueing a message to the call of Next that follows it. 0: 10 s; negative: no
	// limit.
	MaxAge time.Duration
}

// ClosedError is the error of Next when the connection has been closed and all its messages were returned.
type ClosedError struct {
	// Reason is why; manager.SlowConsumer if a limit was exceeded.
	Reason manager.CloseReason
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("outqueue: connection closed: %d %s", e.Reason.Code, e.Reason.Text)
}

// Message is a queued message.
type Message struct {
	*manager.Frame
	// Skipped is the number of older states that this message has replaced in the queue.
	Skipped uint32

	variant manager.Variant
}

// AppendJSON appends the message to dst as its variant has it: with manager.VariantV1 with its offset and, if it is not
// 0, the number of skipped messages.
func (m Message) AppendJSON(dst []byte) []byte { return m.AppendPayload(dst, m.variant, m.Skipped) }

// Queue is a bounded, conflating queue and a [manager.Conn]. Send, Close and Abort may be called from any number of
// goroutines and never block; Next and TryNext are for one goroutine at a time, and not for the functions that the
// manager calls with a lock held. The zero value is an empty queue with the default options.
type Queue struct {
	opt Options
	// wake holds a value when Next should look again. done is closed when nothing of the connection is left.
	wake chan struct{}
	done chan struct{}

	mu sync.Mutex // protects the fields below; nothing blocks and nothing is called under it
	// control precedes data. data[head:] is queued; numbers count from the first message ever queued, and data[0] has
	// number base.
	control []entry
	data    []entry
	head    int
	base    int
	// removed is the number of entries of data[head:] without a frame: states whose successor was queued at the end.
	removed int
	// uploads holds the uploads whose last queued message is a state.
	uploads map[string]*upload
	// queued is the amount of data that is queued or being sent, sending the part that Next has returned last.
	queued, sending amount
	// replays are the stored messages that Next has yet to return, behind the data before the number `behind`: answers,
	// and earlier messages of the same uploads. nil: none.
	replays *replay.Queue
	behind  int
	// replayNext: it is the turn of a replay, and not of data.
	replayNext bool
	// answers is the number of answers in data.
	answers int
	// progress is when Next was last called, or the replays began to wait for it, if there are replays.
	progress time.Time
	// sendingSince is when the message that is being sent was queued; zero while none is.
	sendingSince time.Time
	timer        *time.Timer
	// closed is why no message is accepted any more; nil while the queue is open.
	closed *manager.CloseReason
	ended  bool
}

type entry struct {
	frame   *manager.Frame
	skipped uint32
	queued  time.Time
	answer  bool // of ReleaseReplays: the limits do not include it
}

// upload is an upload whose last queued message is a state.
type upload struct {
	// last is the number of that message.
	last int
	// states are the numbers of the states, by state key, that were queued after the upload's last event. A newer
	// state may replace these.
	states map[string]int
}

// amount is a number of messages and the sum of their sizes.
type amount struct{ messages, bytes int }

func (a amount) fits(messages, bytes int, f amount) bool {
	return (messages < 0 || a.messages+f.messages <= messages) && (bytes < 0 || a.bytes+f.bytes <= bytes)
}

// The interfaces of the manager that a Queue implements.
var (
	_ manager.Conn            = (*Queue)(nil)
	_ manager.Terminator      = (*Queue)(nil)
	_ manager.PositionTracker = (*Queue)(nil)
	_ manager.Replayer        = (*Queue)(nil)
)

// New returns an empty queue. One that is closed, or no longer referred to, holds no resources.
func New(opt Options) *Queue {
	q := new(Queue)
	q.init(opt)
	return q
}

func (q *Queue) init(opt Options) {
	opt.MaxBytes = cmp.Or(opt.MaxBytes, 1<<20)
	opt.MaxMessages = cmp.Or(opt.MaxMessages, 1024)
	opt.MaxAge = cmp.Or(opt.MaxAge, 10*time.Second)
	const most = math.MaxInt / 128 // multiples of the limits must not overflow
	opt.MaxBytes, opt.MaxMessages = min(opt.MaxBytes, most), min(opt.MaxMessages, most)
	q.opt, q.wake, q.done, q.uploads = opt, make(chan struct{}, 1), make(chan struct{}), map[string]*upload{}
}

// lock locks mu, and makes the zero value a queue with the default options.
func (q *Queue) lock() {
	q.mu.Lock()
	if q.done == nil {
		q.init(Options{})
	}
}

// Send queues a message, behind the stored ones of its upload that Next has yet to return.
func (q *Queue) Send(f *manager.Frame) manager.Outcome {
	q.lock()
	defer q.mu.Unlock()
	if !f.For(q.opt.Variant) {
		return manager.Queued // the client misses nothing
	}
	if q.closed != nil {
		return manager.Dropped
	}
	now := time.Now()
	if f.Class() == manager.ClassControl {
		if len(q.control) == maxControl {
			return q.overflow()
		}
		q.control = append(q.control, entry{frame: f, queued: now})
		q.notify()
		return manager.Queued
	}
	if !q.replays.Empty() {
		if outcome, handled := q.sendBehind(f, now); handled {
			return outcome
		}
	}
	live := amount{1, f.Size()}
	switch {
	case q.conflate(f, now):
		return manager.Conflated
	case !q.queued.fits(q.opt.MaxMessages, q.opt.MaxBytes, live) && !q.tolerates(live, now):
		return q.overflow()
	}
	q.queued.messages++
	q.queued.bytes += live.bytes
	q.push(entry{frame: f, queued: now})
	q.watchAge()
	q.notify()
	return manager.Queued
}

// push appends a message.
func (q *Queue) push(e entry) {
	q.data = append(q.data, e)
	q.index(q.base + len(q.data) - 1)
}

// index notes the message with a number as its upload's last one.
func (q *Queue) index(number int) {
	f := q.data[number-q.base].frame
	id := f.UploadID()
	if f.Class() != manager.ClassState || id == "" {
		delete(q.uploads, id) // a newer state must not overtake this message
		return
	}
	u := q.uploads[id]
	if u == nil {
		u = &upload{states: map[string]int{}}
		q.uploads[id] = u
	}
	u.last, u.states[f.StateKey()] = number, number
}

// conflate replaces a queued state of the same upload and key under pressure, and reports whether it has. The newer
// state takes its place if no message of the upload follows it, and is queued at the end otherwise, so that the
// upload's messages keep their order.
func (q *Queue) conflate(f *manager.Frame, now time.Time) bool {
	if f.Class() != manager.ClassState || !q.underPressure(now) {
		return false
	}
	u := q.uploads[f.UploadID()]
	if u == nil {
		return false
	}
	number, found := u.states[f.StateKey()]
	if !found {
		return false
	}
	e := &q.data[number-q.base]
	growth := f.Size() - e.frame.Size()
	more := amount{bytes: growth}
	if growth > 0 && !q.queued.fits(-1, q.opt.MaxBytes, more) && !q.tolerates(more, now) {
		return false // Send finds that the queue is full
	}
	q.queued.bytes += growth
	if number == u.last {
		e.frame = f
		e.skipped++
		return true
	}
	newer := entry{frame: f, skipped: e.skipped + 1, queued: now}
	*e = entry{}
	q.removed++
	q.skipRemoved()
	if 2*q.removed > len(q.data)-q.head {
		q.compact()
	}
	q.push(newer)
	return true
}

// skipRemoved moves head to the next entry with a frame.
func (q *Queue) skipRemoved() {
	for q.head < len(q.data) && q.data[q.head].frame == nil {
		q.head++
		q.removed--
	}
}

// compact drops entries without a frame.
func (q *Queue) compact() {
	queued := slices.DeleteFunc(q.data[q.head:], func(e entry) bool { return e.frame == nil })
	q.base += q.head
	q.data, q.head, q.removed = queued, 0, 0
	clear(q.uploads)
	for i := range q.data {
		q.index(q.base + i)
	}
}

// unindex forgets a message that leaves the queue.
func (q *Queue) unindex(number int, f *manager.Frame) {
	id := f.UploadID()
	switch u := q.uploads[id]; {
	case u == nil:
	case u.last == number:
		delete(q.uploads, id)
	case u.states[f.StateKey()] == number:
		delete(u.states, f.StateKey())
	}
}

// underPressure reports whether states may be replaced: the queue is half full, or its consumer is slow.
func (q *Queue) underPressure(now time.Time) bool {
	half := func(used, limit int) bool { return limit > 0 && 2*used >= limit }
	return half(q.queued.messages, q.opt.MaxMessages) || half(q.queued.bytes, q.opt.MaxBytes) || q.age(now) >= burstAge
}

// tolerates reports whether the queue may exceed its limits for the moment: its consumer is not known to be slow.
func (q *Queue) tolerates(more amount, now time.Time) bool {
	return q.age(now) < burstAge && q.queued.fits(64*q.opt.MaxMessages, 16*q.opt.MaxBytes, more)
}

// age is how long the oldest message has been queued or sent, or a replay has waited for a call of Next.
func (q *Queue) age(now time.Time) time.Duration {
	oldest := now
	if !q.sendingSince.IsZero() {
		oldest = q.sendingSince
	}
	if q.head < len(q.data) && q.data[q.head].queued.Before(oldest) {
		oldest = q.data[q.head].queued
	}
	if q.replays.Pending() && q.progress.Before(oldest) {
		oldest = q.progress
	}
	return now.Sub(oldest)
}

// idle reports whether there is nothing to return or being sent.
func (q *Queue) idle() bool {
	return q.head == len(q.data) && q.sendingSince.IsZero() && !q.replays.Pending()
}

// Next returns the oldest message, and waits for one if there is none. The call means that the messages before have
// been sent. The error is ctx's, or a *ClosedError after Close and all queued messages, or at once if a limit was
// exceeded.
func (q *Queue) Next(ctx context.Context) (Message, error) {
	for {
		m, ok, err := q.next()
		if ok || err != nil {
			return m, err
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
}

// TryNext is like Next but reports false if no message is queued, for a transport that flushes its writes.
func (q *Queue) TryNext() (Message, bool) {
	m, ok, _ := q.next()
	return m, ok
}

func (q *Queue) next() (m Message, ok bool, err error) {
	q.lock()
	defer q.mu.Unlock()
	q.queued.messages -= q.sending.messages
	q.queued.bytes -= q.sending.bytes
	q.sending, q.sendingSince = amount{}, time.Time{}
	replayDue := q.nextReplay()
	switch {
	case len(q.control) > 0:
		e := q.control[0]
		q.control = q.control[1:]
		return q.message(e), true, nil
	case q.head < len(q.data) && !(replayDue && q.replayNext):
		q.replayNext = true
		return q.message(q.pop()), true, nil
	case replayDue:
		q.replayNext = false
		return q.message(q.popReplay(q.progress)), true, nil
	case q.closed != nil:
		q.end()
		return Message{}, false, &ClosedError{*q.closed}
	default:
		q.stopTimer()
		return Message{}, false, nil
	}
}

func (q *Queue) message(e entry) Message {
	q.sendingSince = e.queued
	return Message{Frame: e.frame, Skipped: e.skipped, variant: q.opt.Variant}
}

// pop removes the oldest message of data.
func (q *Queue) pop() entry {
	e := q.data[q.head]
	q.data[q.head] = entry{}
	q.unindex(q.base+q.head, e.frame)
	if e.answer {
		q.answers--
	} else {
		q.sending = amount{1, e.frame.Size()}
	}
	q.head++
	q.skipRemoved()
	if 2*q.head >= len(q.data) { // each message is moved at most once on average
		n := copy(q.data, q.data[q.head:])
		clear(q.data[n:])
		q.data, q.base, q.head = q.data[:n], q.base+q.head, 0
		if n == 0 {
			q.data = nil // an idle queue holds no memory
		}
	}
	return e
}

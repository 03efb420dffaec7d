package coalesce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrClosed is the error of Send after Close was called.
var ErrClosed = errors.New("coalesce: closed")

// Config configures a Coalescer. Only Send is required.
type Config[M, P any] struct {
	// Interval is the time between two states of a key. 0: 100 ms.
	Interval time.Duration
	// Send sends a message of a key and returns its position. It is called concurrently for different keys, but
	// sequentially for one key; it must return soon after ctx has ended, and must not call the coalescer.
	Send func(ctx context.Context, key string, m M) (P, error)
	// Resend is called instead of Send for a waiting state of which an earlier attempt failed, perhaps after it had
	// taken effect. nil: Send.
	Resend func(ctx context.Context, key string, m M) (P, error)
	// Parallel is how many states are sent in the background at a time. 0: 8.
	Parallel int
	// Patience is the timeout of one background attempt. 0: 5 seconds.
	Patience time.Duration
	// Retry is the pause after a failed attempt in the background, RetryMost the longest; each is twice as
	// long as the one before. They are never shorter than Interval. 0: 250 ms and 8 seconds.
	Retry, RetryMost time.Duration
	// Keys is how many keys may have a state that waits. Beyond it states leave at once, however often.
	// 0: 100,000.
	Keys int
	// Failed receives the error of a background attempt. It should return soon. nil: errors are only counted.
	Failed func(key string, err error)
}

// Coalescer sends messages and limits the rate of states per key.
//
// It is safe for concurrent use. Messages of one key are sent sequentially, and a Send that began after another had
// returned sends after it. No lock is held while Config.Send or Config.Failed is called.
type Coalescer[M, P any] struct {
	cfg Config[M, P]
	// ctx is the context of background sends.
	ctx    context.Context
	cancel context.CancelFunc
	// wake wakes the background goroutine, done is closed when it has ended.
	wake, done chan struct{}
	sends      sync.WaitGroup // background sends in progress

	mu     sync.Mutex // protects the fields below; no blocking call is made under it
	keys   map[string]*entry[M, P]
	lines  []line[M, P] // lines[n] is for keys whose last n attempts failed; the last one for more
	ready  *list[M, P]  // keys whose state may leave now
	counts Counts
	// running is how many states are being sent in the background.
	running int
	closed  bool
	unsent  int // states discarded after Close
}

// Counts are the outcomes of the states that were not sent immediately.
type Counts struct {
	// Replaced were never sent, because a newer one came in time.
	Replaced uint64
	// Failed is the number of attempts in the background that failed.
	Failed uint64
	// Waiting is how many keys have a state that waits at the moment, or is being sent after it has waited.
	Waiting int
}

// New returns a running coalescer, which must be closed.
func New[M, P any](cfg Config[M, P]) *Coalescer[M, P] {
	cfg.Interval = cmp.Or(cfg.Interval, 100*time.Millisecond)
	cfg.Parallel = cmp.Or(cfg.Parallel, 8)
	cfg.Patience = cmp.Or(cfg.Patience, 5*time.Second)
	cfg.Retry = cmp.Or(cfg.Retry, 250*time.Millisecond)
	cfg.RetryMost = cmp.Or(cfg.RetryMost, 8*time.Second)
	cfg.Keys = cmp.Or(cfg.Keys, 100_000)
	if cfg.Resend == nil {
		cfg.Resend = cfg.Send
	}
	if cfg.Failed == nil {
		cfg.Failed = func(string, error) {}
	}
	t := &Coalescer[M, P]{
		cfg: cfg, keys: make(map[string]*entry[M, P]), lines: linesFor(cfg), ready: new(list[M, P]),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background()) //nolint:gosec // Close calls it
	go t.run()                                                 // Close waits for it
	return t
}

// Send sends a message of a key. If a state of the key was sent within the interval, or is being sent, a new state
// replaces the waiting one, and Send returns at once with the position of the key's last sent message, or the zero
// value if it is unknown. Any other message is sent before Send returns, after the waiting state of the key; if sending
// that state fails, the message is not sent and the state keeps waiting.
//
// It blocks on Config.Send and on earlier messages of the key, at most until ctx ends. It returns the errors of
// Config.Send and of ctx, and ErrClosed.
func (t *Coalescer[M, P]) Send(ctx context.Context, key string, m M, state bool) (P, error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		var zero P
		return zero, ErrClosed
	}
	e := t.entryLocked(key)
	if state && e.holds(time.Now()) && (e.held() || t.counts.Waiting < t.cfg.Keys) {
		defer t.mu.Unlock()
		t.holdLocked(e, m)
		return e.last, nil
	}
	if state {
		e.leaving++
	}
	turn := e.lineUp()
	t.mu.Unlock()
	return t.sendNow(ctx, e, turn, m, state)
}

// sendNow sends a message in its turn.
func (t *Coalescer[M, P]) sendNow(
	ctx context.Context, e *entry[M, P], turn chan struct{}, m M, state bool,
) (pos P, err error) {
	if err := t.await(ctx, e, turn, state); err != nil {
		return pos, err
	}
	if state {
		t.left(e)
	} else if err := t.flush(ctx, e); err != nil {
		t.release(e)
		return pos, err
	}
	pos, err = t.cfg.Send(ctx, e.key, m)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		e.last = pos
	}
	if state {
		e.leaving--
		if err != nil && !e.held() {
			e.leave() // none has left, as far as is known: the next may try at once
		}
	}
	t.releaseLocked(e)
	return pos, err
}

// Close stops the coalescer: it sends the waiting states without further delay, with one attempt each, and at most
// until ctx ends. The error contains the number of unsent states. No goroutine is left when it returns; a second call
// returns the same result.
func (t *Coalescer[M, P]) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.nudge()
	select {
	case <-t.done:
	case <-ctx.Done():
	}
	t.cancel()
	t.nudge()
	<-t.done
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.unsent + t.counts.Waiting; n > 0 {
		return fmt.Errorf("coalesce: %d waiting messages could not be sent", n)
	}
	return nil
}

// Counts returns the outcomes of the states that were not sent immediately.
func (t *Coalescer[M, P]) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}

const (
	// idle is how long the goroutine waits if nothing is due; it is woken when that changes.
	idle = time.Hour
	// batch is the number of keys processed per acquisition of the lock.
	batch = 1024
)

// run sends due states in the background until the coalescer is closed.
func (t *Coalescer[M, P]) run() {
	defer close(t.done)
	defer t.sends.Wait()
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		pause, over := t.advance()
		if over {
			return
		}
		timer.Reset(pause)
		select {
		case <-t.wake:
		case <-timer.C:
		}
	}
}

// nudge wakes run.
func (t *Coalescer[M, P]) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// advance removes the due entries from the lines and starts to send ready ones, as far as Config.Parallel allows. It
// returns the time until the next entry is due; over means that the coalescer is closed and no work is left.
func (t *Coalescer[M, P]) advance() (pause time.Duration, over bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pause = t.dueLocked(time.Now())
	gaveUp := t.ctx.Err() != nil
	for t.running < t.cfg.Parallel && t.ready.first != nil && !gaveUp {
		e := t.ready.first
		e.leave()
		if e.busy || !e.full {
			t.settleLocked(e) // the goroutine that has the key's turn settles it afterwards
			continue
		}
		e.busy = true
		t.running++
		t.sends.Add(1)
		go t.background(e, t.closed)
	}
	return pause, t.closed && t.running == 0 && (gaveUp || t.counts.Waiting == 0)
}

// dueLocked removes the due entries from the lines, or all entries after Close, and returns the time until the next one
// is due.
func (t *Coalescer[M, P]) dueLocked(now time.Time) time.Duration {
	pause := idle
	left := batch
	for _, l := range t.lines {
		for e := l.first; e != nil; e = l.first {
			if wait := e.due.Sub(now); wait > 0 && !t.closed {
				pause = min(pause, wait)
				break
			}
			if left--; left < 0 {
				return 0
			}
			e.leave()
			t.settleLocked(e)
		}
	}
	return pause
}

// background attempts to send the waiting state. last marks the final attempt.
func (t *Coalescer[M, P]) background(e *entry[M, P], last bool) {
	defer t.sends.Done()
	ctx, cancel := context.WithTimeout(t.ctx, t.cfg.Patience)
	defer cancel()
	err := t.flush(ctx, e)
	if err != nil {
		t.cfg.Failed(e.key, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	if err != nil {
		t.counts.Failed++
	}
	if err != nil && last && e.full {
		var none M
		e.slot, e.full = none, false
		t.counts.Waiting--
		t.unsent++
	}
	t.releaseLocked(e)
	t.nudge()
}

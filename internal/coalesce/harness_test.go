package coalesce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const interval = 100 * time.Millisecond

var errAway = errors.New("the engine is away")

// sent is one attempt that an engine has seen.
type sent struct {
	key        string
	n          int
	start, end time.Duration // since the engine was made
	err        error
}

// engine takes messages, which are numbers from 1 on, and returns them as their positions.
type engine struct {
	t     *testing.T
	began time.Time

	mu     sync.Mutex
	takes  func(key string, n int) (time.Duration, error) // duration and result of an attempt
	within map[string]bool
	all    []sent
	most   int // attempts at a time
}

func newEngine(t *testing.T) *engine {
	return &engine{t: t, began: time.Now(), within: make(map[string]bool),
		takes: func(string, int) (time.Duration, error) { return 0, nil }}
}

// becomes sets the duration and result of attempts from now on.
func (e *engine) becomes(takes func(key string, n int) (time.Duration, error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.takes = takes
}

// away lets every attempt fail from now on, back lets them succeed.
func (e *engine) away() { e.becomes(func(string, int) (time.Duration, error) { return 0, errAway }) }
func (e *engine) back() { e.becomes(func(string, int) (time.Duration, error) { return 0, nil }) }

func (e *engine) send(ctx context.Context, key string, n int) (int, error) {
	s := sent{key: key, n: n, start: time.Since(e.began)}
	e.mu.Lock()
	if e.within[key] {
		e.t.Errorf("two messages of %s are sent at a time", key)
	}
	e.within[key] = true
	e.most = max(e.most, len(e.within))
	takes, err := e.takes(key, n)
	e.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.within, key)
	s.end, s.err = time.Since(e.began), err
	e.all = append(e.all, s)
	if err != nil {
		return 0, err
	}
	return n, nil
}

// log returns the attempts that succeeded, as key, number and start in milliseconds.
func (e *engine) log() (lines []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.all {
		if s.err == nil {
			lines = append(lines, fmt.Sprintf("%s%d@%d", s.key, s.n, s.start.Milliseconds()))
		}
	}
	return lines
}

// attempts returns how often it was tried to send something.
func (e *engine) attempts() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.all)
}

// inBubble runs a test with a throttle of 100 ms, which is closed at the end, in a synctest bubble.
func inBubble(t *testing.T, cfg Config[int, int], test func(t *testing.T, th *Coalescer[int, int], e *engine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t)
		cfg.Interval, cfg.Send = interval, e.send
		th := New(cfg)
		test(t, th, e)
		_ = th.Close(t.Context())
	})
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// empty wants that nothing is remembered.
func empty(t *testing.T, th *Coalescer[int, int]) {
	t.Helper()
	th.mu.Lock()
	defer th.mu.Unlock()
	if len(th.keys) != 0 || th.ready.first != nil || th.counts.Waiting != 0 || th.running != 0 {
		t.Errorf("%d keys are left, %d wait, %d are being sent", len(th.keys), th.counts.Waiting, th.running)
	}
	for i, l := range th.lines {
		if l.first != nil || l.last != nil {
			t.Errorf("line %d is not empty", i)
		}
	}
}

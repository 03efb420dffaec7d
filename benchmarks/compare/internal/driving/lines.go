package driving

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// lines counts messages where a WebSocket message may hold several. Latency is then that of the first one in
// it, which has waited longest. data may be called from several goroutines, wait from one.
type lines struct {
	count atomic.Uint64
	// latest is when the newest came, in nanoseconds of Unix time.
	latest atomic.Int64
	// target is what is waited for; release closes reached.
	target  atomic.Uint64
	mu      sync.Mutex // protects reached
	reached chan struct{}
}

func newLines() *lines {
	l := &lines{}
	l.target.Store(math.MaxUint64)
	return l
}

// data counts what a WebSocket message holds, and reports whether that is anything.
func (l *lines) data(payload []byte) bool {
	n := systems.Lines(payload)
	if n == 0 {
		return false
	}
	l.latest.Store(time.Now().UnixNano())
	// A waiter notes its target first and looks at the count then; here it is the other way round. So one of
	// the two sees the other.
	if now := l.count.Add(uint64(n)); now >= l.target.Load() { //nolint:gosec // not negative
		l.release()
	}
	return true
}

func (l *lines) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reached != nil {
		close(l.reached)
		l.reached = nil
		l.target.Store(math.MaxUint64)
	}
}

// wait blocks until so many messages have come, and returns when the newest did. The error is that of ctx.
func (l *lines) wait(ctx context.Context, total uint64) (last time.Time, err error) {
	reached := make(chan struct{})
	l.mu.Lock()
	l.reached = reached
	l.target.Store(total)
	l.mu.Unlock()
	if l.count.Load() >= total {
		l.release()
	}
	select {
	case <-reached:
	case <-ctx.Done():
		l.target.Store(math.MaxUint64)
		err = fmt.Errorf("driving: %d of %d messages have come: %w", l.count.Load(), total, context.Cause(ctx))
	}
	return time.Unix(0, l.latest.Load()), err
}

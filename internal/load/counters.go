package load

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Counts are the totals of a fleet's clients, each since it became ready. Stalled clients receive nothing.
type Counts struct {
	// Messages is the number of application messages, see Dialect.Data.
	Messages uint64
	// Bytes is the number of bytes received, ReadCalls the number of system calls.
	Bytes, ReadCalls uint64
	// Closed is the number of connections that have ended before Close.
	Closed int
}

// counters adds up reads and notifies waiters for a number of messages. Its methods may be called from any number of
// goroutines.
type counters struct {
	began                      time.Time
	messages, bytes, readCalls atomic.Uint64
	// latest is the time of the last message, in nanoseconds since began.
	latest atomic.Int64

	// lowestTotal is the smallest total of the waiters, so that a read costs only one more comparison.
	lowestTotal atomic.Uint64
	mu          sync.Mutex // protects waiters, and writing lowest
	waiters     []*waiter
}

// waiter waits for a number of messages. reached receives one time.
type waiter struct {
	total   uint64
	reached chan time.Time
}

func newCounts(now time.Time) *counters {
	c := &counters{began: now}
	c.lowestTotal.Store(math.MaxUint64)
	return c
}

// add counts one read and the messages completed in it.
func (c *counters) add(messages uint64, bytes int, now time.Time) {
	c.readCalls.Add(1)
	c.bytes.Add(uint64(bytes)) //nolint:gosec // a length is not negative
	if messages == 0 {
		return
	}
	c.latest.Store(int64(now.Sub(c.began)))
	// A waiter first stores its total and then reads the count. Here the order is reversed, so at least one of the two
	// sees the other's write.
	if total := c.messages.Add(messages); total >= c.lowestTotal.Load() {
		c.release(total, now)
	}
}

func (c *counters) release(total uint64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(w *waiter) bool {
		if w.total > total {
			return false
		}
		w.reached <- now // does not block: the channel has room for the only send
		return true
	})
	c.setLowestLocked()
}

func (c *counters) setLowestLocked() {
	lowest := uint64(math.MaxUint64)
	for _, w := range c.waiters {
		lowest = min(lowest, w.total)
	}
	c.lowestTotal.Store(lowest)
}

// wait returns a waiter for a number of messages. The caller must call removeWaiter.
func (c *counters) wait(total uint64) *waiter {
	w := &waiter{total, make(chan time.Time, 1)}
	c.mu.Lock()
	c.waiters = append(c.waiters, w)
	c.setLowestLocked()
	c.mu.Unlock()
	if now := c.messages.Load(); now >= total {
		c.release(now, c.last())
	}
	return w
}

func (c *counters) removeWaiter(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(other *waiter) bool { return other == w })
	c.setLowestLocked()
}

// last returns the time of the newest message, or of the start if there is none.
func (c *counters) last() time.Time { return c.began.Add(time.Duration(c.latest.Load())) }

const (
	// maxLatency is the largest recorded time. Longer ones are recorded as this.
	maxLatency = 10 * time.Minute
	// significantDigits is the number of significant decimal digits of recorded times.
	significantDigits = 3
)

package load

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Counts are what the clients of a fleet have received since each was ready. Those that stall receive nothing.
type Counts struct {
	// Messages are those that the dialect counts.
	Messages uint64
	// Bytes are all that came, and ReadCalls the system calls that it took.
	Bytes, ReadCalls uint64
	// Closed is the number of clients whose connection has ended, other than by Close.
	Closed int
}

// counts add up what comes, and release who waits for a number of messages. Methods may be called from any
// number of goroutines.
type counts struct {
	began                      time.Time
	messages, bytes, readCalls atomic.Uint64
	// latest is when the last message came, in nanoseconds after began.
	latest atomic.Int64

	// lowest is the smallest number that is waited for, so that a read costs one comparison more.
	lowest  atomic.Uint64
	mu      sync.Mutex // protects waiters, and writing lowest
	waiters []*waiter
}

// waiter waits for a number of messages; reached gets the time once.
type waiter struct {
	total   uint64
	reached chan time.Time
}

func newCounts(now time.Time) *counts {
	c := &counts{began: now}
	c.lowest.Store(math.MaxUint64)
	return c
}

// add counts one read, with the messages that were completed in it.
func (c *counts) add(messages uint64, bytes int, now time.Time) {
	c.readCalls.Add(1)
	c.bytes.Add(uint64(bytes)) //nolint:gosec // a length is not negative
	if messages == 0 {
		return
	}
	c.latest.Store(int64(now.Sub(c.began)))
	// A waiter notes its number first and looks at the count then; here it is the other way round. So one of
	// the two sees the other.
	if total := c.messages.Add(messages); total >= c.lowest.Load() {
		c.release(total, now)
	}
}

func (c *counts) release(total uint64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(w *waiter) bool {
		if w.total > total {
			return false
		}
		w.reached <- now // has room: it is sent once
		return true
	})
	c.setLowestLocked()
}

func (c *counts) setLowestLocked() {
	lowest := uint64(math.MaxUint64)
	for _, w := range c.waiters {
		lowest = min(lowest, w.total)
	}
	c.lowest.Store(lowest)
}

// wait returns a waiter for a number of messages, to be given back with forget.
func (c *counts) wait(total uint64) *waiter {
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

func (c *counts) forget(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(other *waiter) bool { return other == w })
	c.setLowestLocked()
}

// last is when the newest message came; before the first one, when counting began.
func (c *counts) last() time.Time { return c.began.Add(time.Duration(c.latest.Load())) }

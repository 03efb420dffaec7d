package manager

import (
	"sync"
	"time"
)

// ageClock measures ages that must not be too short. It advances with the monotonic clock, and with the wall clock where
// that advances more: the monotonic clock stands still while a machine is suspended. It never goes backwards, and no
// two readings are equal.
type ageClock struct {
	mu    sync.Mutex // protects the fields below
	last  time.Time
	total time.Duration
}

// now returns the time since some moment in the past. It is never 0.
func (c *ageClock) now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.last.IsZero() {
		c.last = now
	}
	c.total += advance(now.Sub(c.last), now.Round(0).Sub(c.last.Round(0)))
	c.last = now
	return c.total
}

// advance returns how much time has passed by the clock that advanced more, and something in any case.
func advance(monotonic, wall time.Duration) time.Duration { return max(monotonic, wall, 1) }

package manager

import (
	"sync"
	"time"
)

// ageClock measures ages with two clocks that may disagree: the monotonic one stands still while a machine is
// suspended, the wall clock can be set. Its readings therefore have two bounds. It never goes backwards.
type ageClock struct {
	mu   sync.Mutex // protects the fields below
	last time.Time
	at   instant
}

// instant is a reading of an ageClock: the time since some moment in the past.
type instant struct {
	// most counts with the clock that advanced more. Connections are aged by it, so that an order spares none that is
	// older. No two readings are equal, and none is 0.
	most time.Duration
	// least counts with the clock that advanced less. Orders are aged by it when they are handed to other nodes: an
	// order that seems older than it is would spare connections that it has to close.
	least time.Duration
}

// minus returns the instant that was an age ago.
func (i instant) minus(age time.Duration) instant { return instant{i.most - age, i.least - age} }

// now returns the time since some moment in the past, at most. It is never 0.
func (c *ageClock) now() time.Duration { return c.read().most }

// read returns the present.
func (c *ageClock) read() instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.last.IsZero() {
		c.last = now
	}
	c.at.advance(now.Sub(c.last), now.Round(0).Sub(c.last.Round(0)))
	c.last = now
	return c.at
}

// advance adds the time that has passed on the two clocks. It always increases most.
func (i *instant) advance(monotonic, wall time.Duration) {
	i.most += max(monotonic, wall, 1)
	i.least += max(min(monotonic, wall), 0)
}

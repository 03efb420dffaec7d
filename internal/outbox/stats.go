package outbox

import (
	"sync/atomic"
	"time"
)

// Stats holds the counters of a pool since NewPool.
type Stats struct {
	// Frames and Bytes are the frames and bytes written, Writes the number of write calls.
	Frames uint64 `json:"frames"`
	Bytes  uint64 `json:"bytes"`
	Writes uint64 `json:"writes"`
	// Overflowed is the number of connections closed because their client was too slow.
	Overflowed uint64 `json:"overflowed"`
	// Panics is the number of connections aborted because a write to them panicked.
	Panics uint64 `json:"panics"`
	// Stalled is the current number of connections with unwritten frames whose socket has returned EAGAIN.
	Stalled int64 `json:"stalled"`
}

// cacheLine is the size of the padding between fields written by different processors.
const cacheLine = 64

// counters holds one writer's share of the counters. Its methods may be called from any number of goroutines. The
// counters of the writer and those of the callers of Send are in different cache lines.
type counters struct {
	frames, bytes, writes atomic.Uint64
	_                     [cacheLine - 3*8]byte

	overflowed, panics atomic.Uint64
	stalled            atomic.Int64
	_                  [cacheLine - 3*8]byte
}

func (c *counters) wrote(frames, bytes int) {
	c.frames.Add(uint64(frames)) //nolint:gosec // not negative
	c.bytes.Add(uint64(bytes))   //nolint:gosec // not negative
	c.writes.Add(1)
}

func (c *counters) addTo(s *Stats) {
	s.Frames += c.frames.Load()
	s.Bytes += c.bytes.Load()
	s.Writes += c.writes.Load()
	s.Overflowed += c.overflowed.Load()
	s.Panics += c.panics.Load()
	s.Stalled += c.stalled.Load()
}

// Stats returns the sums over all writers. The counters are not read at one instant.
func (p *Pool) Stats() Stats {
	var s Stats
	for _, w := range p.writers {
		w.count.addTo(&s)
	}
	return s
}

// Pending is the unwritten content of an outbox.
type Pending struct {
	// Frames and Bytes are those of the queues, without those of a recovery.
	Frames, Bytes int
	// RecoveryBytes are those of the stored messages that are queued for a recovery.
	RecoveryBytes int
	// Waiting is how long the oldest unwritten frame has waited for the client; 0 while it waits for the writer.
	Waiting time.Duration
}

// Pending returns the unwritten content.
func (o *Outbox) Pending() Pending {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := Pending{
		Frames: o.data.unwritten.frames + o.control.unwritten.frames,
		Bytes:  o.data.unwritten.bytes + o.control.unwritten.bytes,
	}
	if o.recovery != nil {
		p.RecoveryBytes = o.recovery.Bytes()
	}
	if o.draining && (p.Frames > 0 || p.RecoveryBytes > 0) {
		p.Waiting = time.Duration(o.pool.clock()-o.oldest) * time.Millisecond
	}
	return p
}

package outbox

import "sync/atomic"

// Stats counts what a pool has done since it was made, and what it is doing.
type Stats struct {
	// Frames and Bytes are what the sockets have taken, Writes the calls that it took.
	Frames uint64 `json:"frames"`
	Bytes  uint64 `json:"bytes"`
	Writes uint64 `json:"writes"`
	// Conflated, Dropped: the messages for which Send returned that.
	Conflated uint64 `json:"conflated"`
	Dropped   uint64 `json:"dropped"`
	// Overflowed is the number of connections closed because they were too slow.
	Overflowed uint64 `json:"overflowed"`
	// Panics is the number of connections aborted because writing to them panicked.
	Panics uint64 `json:"panics"`
	// Stalled is the number of connections whose socket refused bytes and which still have some waiting.
	Stalled int64 `json:"stalled"`
}

// cacheLine keeps what different processors write to apart.
const cacheLine = 64

// counters are one writer's share of the counts. They may be used from any number of goroutines. What is
// counted at each write stands apart from what is counted by senders.
type counters struct {
	frames, bytes, writes atomic.Uint64
	_                     [cacheLine - 3*8]byte

	conflated, dropped, overflowed, panics atomic.Uint64
	stalled                                atomic.Int64
	_                                      [cacheLine - 5*8]byte
}

func (c *counters) wrote(frames, bytes int) {
	c.frames.Add(uint64(frames)) //nolint:gosec // a number of frames is not negative
	c.bytes.Add(uint64(bytes))   //nolint:gosec // nor is a length
	c.writes.Add(1)
}

func (c *counters) addTo(s *Stats) {
	s.Frames += c.frames.Load()
	s.Bytes += c.bytes.Load()
	s.Writes += c.writes.Load()
	s.Conflated += c.conflated.Load()
	s.Dropped += c.dropped.Load()
	s.Overflowed += c.overflowed.Load()
	s.Panics += c.panics.Load()
	s.Stalled += c.stalled.Load()
}

// Stats returns the sums over all writers. The numbers are read one after the other, not at one instant.
func (p *Pool) Stats() Stats {
	var s Stats
	for _, w := range p.writers {
		w.count.addTo(&s)
	}
	return s
}

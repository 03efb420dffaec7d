package server

import (
	"sync/atomic"

	"github.com/shoal-go/shoal/manager"
)

// counters count what happens at the edge.
type counters struct {
	open                      atomic.Int64
	refused, unauthenticated  atomic.Uint64
	received, ignored, failed atomic.Uint64
}

// Stats are the counts of a server and its manager. Taken while they work, each is right for some moment.
type Stats struct {
	manager.Stats
	// Open is the number of WebSockets, authenticated or not.
	Open int64 `json:"open"`

	// Since the start: upgrades refused, tokens refused, client messages received, ignored because nobody
	// knows them, and refused, and connections closed because their client was too slow.
	Refused         uint64 `json:"refused"`
	Unauthenticated uint64 `json:"unauthenticated"`
	Received        uint64 `json:"received"`
	Ignored         uint64 `json:"ignored"`
	Failed          uint64 `json:"failed"`
	SlowConsumers   uint64 `json:"slow_consumers"`

	// Frames, bytes and system calls that went out since the start, and connections that do not take what
	// they are sent, now.
	SentFrames uint64 `json:"sent"`
	SentBytes  uint64 `json:"sent_bytes"`
	Writes     uint64 `json:"writes"`
	Stalled    int64  `json:"stalled"`
}

// Stats returns the counts of the server and its manager.
func (s *Server) Stats() Stats {
	out := s.writers.Stats()
	n := &s.counters
	return Stats{
		Stats:           s.manager.Stats(),
		Open:            n.open.Load(),
		Refused:         n.refused.Load(),
		Unauthenticated: n.unauthenticated.Load(),
		Received:        n.received.Load(),
		Ignored:         n.ignored.Load(),
		Failed:          n.failed.Load(),
		SlowConsumers:   out.Overflowed,
		SentFrames:      out.Frames,
		SentBytes:       out.Bytes,
		Writes:          out.Writes,
		Stalled:         out.Stalled,
	}
}

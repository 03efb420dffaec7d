package server

import (
	"net/http"
	"net/netip"
	"sync/atomic"
)

// refusal is why a new connection is refused.
type refusal struct {
	count   *atomic.Uint64
	status  int
	problem string
	// retry: the client may come back after a while.
	retry bool
}

// setHeader sets the headers of the answer to a refused request.
func (r *refusal) setHeader(h http.Header) {
	if r.retry {
		h.Set("Retry-After", retryAfter)
	}
}

// admit counts a new connection of a peer, or returns why it is refused: the server is draining or full, the peer has too
// many connections, or connections come too fast. An admitted connection must be released.
func (s *Server) admit(peer netip.Addr) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	busy := func(count *atomic.Uint64) *refusal {
		return &refusal{count, http.StatusServiceUnavailable, "no new connections now, try again later", true}
	}
	key, limits := bucket(peer), s.settings.Load()
	switch {
	case s.draining.Load():
		return busy(&s.counters.refusedDraining)
	case limits.MaxConnections > 0 && s.counters.open.Load() >= int64(limits.MaxConnections):
		return busy(&s.counters.refusedFull)
	case limits.MaxConnectionsPerIP > 0 && key.IsValid() && s.perPeer[key] >= limits.MaxConnectionsPerIP:
		return &refusal{&s.counters.refusedPerIP, http.StatusTooManyRequests,
			"too many connections from this address", true}
	case limits.connectRate != nil && !limits.connectRate.Allow():
		return busy(&s.counters.refusedRate)
	}
	s.counters.open.Add(1)
	if key.IsValid() {
		s.perPeer[key]++
	}
	s.clients.Add(1)
	return nil
}

// release undoes admit.
func (s *Server) release(peer netip.Addr) {
	s.mu.Lock()
	if key := bucket(peer); key.IsValid() {
		if s.perPeer[key]--; s.perPeer[key] <= 0 {
			delete(s.perPeer, key)
		}
	}
	s.mu.Unlock()
	s.counters.open.Add(-1)
	s.clients.Done()
}

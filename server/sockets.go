package server

import (
	"container/list"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// sockets holds the HTTP connections of Serve and ServeHandler, and bounds them together with the WebSockets. The zero
// value is ready for use.
//
// Connections that wait for a request can be opened without any credentials, so at the bound the one that has waited
// longest is closed in favour of a new one. Connections that have shown an API key are closed only when all others are
// in use, and not within trustedIdle after a request, so that silent connections do not lock out publishers.
type sockets struct {
	mu    sync.Mutex // protects the fields below; closing a connection under it does not block
	conns map[net.Conn]*socketState
	// waiting holds the connections without an API key that wait for a request, longest first; trusted those with one.
	waiting, trusted list.List
}

// socketState is the state of an HTTP connection.
type socketState struct {
	element *list.Element // in one of the lists, nil while a request is handled
	trusted bool
	since   time.Duration // when it began to wait
}

// trustedIdle is how long a connection that has shown an API key is kept for its next request at MaxSockets.
const trustedIdle = 10 * time.Second

// list returns the list for a connection that waits.
func (s *sockets) list(state *socketState) *list.List {
	if state.trusted {
		return &s.trusted
	}
	return &s.waiting
}

// add adds a new connection. It reports false if the connection must be closed, because there are limit others,
// counting open WebSockets, and none of them may be closed in its place.
func (s *sockets) add(conn net.Conn, now time.Duration, open int64, limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = make(map[net.Conn]*socketState)
	}
	allowed := true
	if limit > 0 && int64(len(s.conns))+open >= int64(limit) {
		oldest := s.waiting.Front()
		if oldest == nil {
			oldest = s.trusted.Front()
		}
		if allowed = oldest != nil && s.replaceableLocked(oldest, now); allowed {
			victim := oldest.Value.(net.Conn) // waitLocked adds no others
			s.removeLocked(victim)
			_ = closeSocket(victim)
		}
	}
	s.conns[conn] = &socketState{}
	s.waitLocked(conn, now)
	return allowed
}

// replaceableLocked reports whether a connection in one of the lists may be closed in favour of a new one.
func (s *sockets) replaceableLocked(element *list.Element, now time.Duration) bool {
	state := s.conns[element.Value.(net.Conn)] // waitLocked adds no others
	return !state.trusted || now-state.since >= trustedIdle
}

// inUse returns the number of connections that are not closed in favour of a new one.
func (s *sockets) inUse(now time.Duration) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.conns) - s.waiting.Len()
	for e := s.trusted.Front(); e != nil && s.replaceableLocked(e, now); e = e.Next() {
		n--
	}
	return n
}

// wait notes that a connection waits for its next request.
func (s *sockets) wait(conn net.Conn, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitLocked(conn, now)
}

func (s *sockets) waitLocked(conn net.Conn, now time.Duration) {
	if state := s.conns[conn]; state != nil && state.element == nil {
		state.element, state.since = s.list(state).PushBack(conn), now
	}
}

// busy notes that a connection has sent a request.
func (s *sockets) busy(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state := s.conns[conn]; state != nil && state.element != nil {
		s.list(state).Remove(state.element)
		state.element = nil
	}
}

// remove removes a connection that has ended or become a WebSocket.
func (s *sockets) remove(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(conn)
}

func (s *sockets) removeLocked(conn net.Conn) {
	if state := s.conns[conn]; state != nil && state.element != nil {
		s.list(state).Remove(state.element)
	}
	delete(s.conns, conn)
}

// closeAll closes all connections.
func (s *sockets) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = closeSocket(conn)
	}
}

// len returns the number of connections.
func (s *sockets) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// connKey is the key of the net.Conn in the context of a request of Serve or ServeHandler.
type connKey struct{}

func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// trust notes that the connection of a request has shown an API key.
func (s *sockets) trust(r *http.Request) {
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return // a server of the embedder's
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if state := s.conns[conn]; state != nil && state.element == nil { // a list must keep its connections
		state.trusted = true
	}
}

// countSocket follows the state of a connection of Serve, and closes new ones beyond Options.MaxSockets.
func (s *Server) countSocket(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if !s.sockets.add(conn, s.clock(), s.counters.open.Load(), s.settings.Load().MaxSockets) {
			s.counters.refusedSockets.Add(1)
			_ = closeSocket(conn) // StateClosed follows
		}
	case http.StateActive:
		s.sockets.busy(conn)
	case http.StateIdle:
		s.sockets.wait(conn, s.clock())
	case http.StateClosed, http.StateHijacked:
		s.sockets.remove(conn)
	}
}

// bodies are the request bodies that are being read, which get a short deadline when the server drains. The zero value
// is ready for use.
type bodies struct {
	mu       sync.Mutex // protects the fields below; setting a deadline under it does not block
	reading  map[*timedBody]struct{}
	draining bool
}

// timedBody is a request body with a read deadline, which is removed with the end of the body: net/http would cancel
// the context of a handler that works for longer.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
	all     *bodies
}

// add returns a request whose body has a deadline, and a function to be called when the handler is done with it. The
// given request stays as it is, because net/http finds out by its body how to end the request.
func (b *bodies) add(w http.ResponseWriter, r *http.Request, timeout time.Duration) (timed *http.Request, done func()) {
	body := &timedBody{r.Body, http.NewResponseController(w), b}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.draining {
		timeout = min(timeout, drainBodyTimeout)
	}
	// Response writers of an embedder's may not support deadlines.
	if body.control.SetReadDeadline(time.Now().Add(timeout)) != nil {
		return r, func() {}
	}
	if b.reading == nil {
		b.reading = make(map[*timedBody]struct{})
	}
	b.reading[body] = struct{}{}
	timed = r.WithContext(r.Context())
	timed.Body = body
	return timed, func() { b.remove(body) }
}

// Read reads from the body.
func (t *timedBody) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err == io.EOF && t.all.remove(t) {
		_ = t.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// remove reports whether the body was being read.
func (b *bodies) remove(body *timedBody) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, reading := b.reading[body]
	delete(b.reading, body)
	return reading
}

// drain shortens the deadlines of all bodies, now and later.
func (b *bodies) drain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draining = true
	for body := range b.reading {
		_ = body.control.SetReadDeadline(time.Now().Add(drainBodyTimeout))
	}
}

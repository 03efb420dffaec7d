package server

import (
	"container/list"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/shoal-go/shoal/internal/outbox"
)

// httpConns holds the HTTP connections of Serve and ServeHandler, and bounds them together with the WebSockets. The
// zero value is ready for use.
//
// Connections that wait for a request can be opened without any credentials, so at the bound the one that has waited
// longest is closed in favour of a new one. Connections that have shown an API key are closed only when all others are
// in use, and not within trustedIdle after a request, so that silent connections do not lock out publishers.
type httpConns struct {
	mu    sync.Mutex // protects the fields below; closing a connection under it does not block
	conns map[net.Conn]*httpConnState
	// waiting holds the connections without an API key that wait for a request, longest first; trusted those with one.
	waiting, trusted list.List
	// shared is the sum of the connections' admitted.
	shared int
}

// httpConnState is the state of an HTTP connection.
type httpConnState struct {
	element *list.Element // in one of the lists, nil while a request is handled
	trusted bool
	since   time.Duration // when it began to wait
	// admitted is the number of WebSockets and event streams that the server counts as open and that use this socket:
	// one that is being decided about, or the streams of a connection of HTTP/2.
	admitted int
}

// trustedIdle is how long a connection that has shown an API key is kept for its next request at MaxSockets.
const trustedIdle = 10 * time.Second

// list returns the list for a connection that waits.
func (h *httpConns) list(state *httpConnState) *list.List {
	if state.trusted {
		return &h.trusted
	}
	return &h.waiting
}

// add adds a new connection. It reports false if the connection must be closed, because there are limit others,
// counting open WebSockets, and none of them may be closed in its place.
func (h *httpConns) add(conn net.Conn, now time.Duration, open int64, limit int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conns == nil {
		h.conns = make(map[net.Conn]*httpConnState)
	}
	allowed := true
	if limit > 0 && int64(len(h.conns)-h.shared)+open >= int64(limit) {
		oldest := h.waiting.Front()
		if oldest == nil {
			oldest = h.trusted.Front()
		}
		if allowed = oldest != nil && h.replaceableLocked(oldest, now); allowed {
			victim := oldest.Value.(net.Conn) // waitLocked adds no others
			h.removeLocked(victim)
			_ = outbox.CloseSocket(victim)
		}
	}
	h.conns[conn] = &httpConnState{}
	h.waitLocked(conn, now)
	return allowed
}

// replaceableLocked reports whether a connection in one of the lists may be closed in favour of a new one.
func (h *httpConns) replaceableLocked(element *list.Element, now time.Duration) bool {
	state := h.conns[element.Value.(net.Conn)] // waitLocked adds no others
	return !state.trusted || now-state.since >= trustedIdle
}

// inUse returns the number of connections that are not closed in favour of a new one, without those that carry an open
// WebSocket or event stream.
func (h *httpConns) inUse(now time.Duration) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.conns) - h.shared - h.waiting.Len()
	for e := h.trusted.Front(); e != nil && h.replaceableLocked(e, now); e = e.Next() {
		n--
	}
	return n
}

// wait notes that a connection waits for its next request.
func (h *httpConns) wait(conn net.Conn, now time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waitLocked(conn, now)
}

func (h *httpConns) waitLocked(conn net.Conn, now time.Duration) {
	if state := h.conns[conn]; state != nil && state.element == nil {
		state.element, state.since = h.list(state).PushBack(conn), now
	}
}

// busy notes that a connection has sent a request.
func (h *httpConns) busy(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if state := h.conns[conn]; state != nil && state.element != nil {
		h.list(state).Remove(state.element)
		state.element = nil
	}
}

// remove removes a connection that has ended or become a WebSocket.
func (h *httpConns) remove(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removeLocked(conn)
}

func (h *httpConns) removeLocked(conn net.Conn) {
	state := h.conns[conn]
	if state == nil {
		return
	}
	if state.element != nil {
		h.list(state).Remove(state.element)
	}
	h.shared -= state.admitted
	delete(h.conns, conn)
}

// closeAll closes all connections.
func (h *httpConns) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for conn := range h.conns {
		_ = outbox.CloseSocket(conn)
	}
}

// len returns the number of connections.
func (h *httpConns) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

// connKey is the key of the net.Conn in the context of a request of Serve or ServeHandler.
type connKey struct{}

func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// trust notes that the connection of a request has shown an API key.
func (h *httpConns) trust(r *http.Request) {
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return // a server of the embedder's
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if state := h.conns[conn]; state != nil && state.element == nil { // a list must keep its connections
		state.trusted = true
	}
}

// share notes that n more open WebSockets or event streams use the socket of a request, which then counts once. It has
// no effect on a socket that has been taken over.
func (h *httpConns) share(r *http.Request, n int) {
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return // a server of the embedder's
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if state := h.conns[conn]; state != nil {
		state.admitted += n
		h.shared += n
	}
}

// countHTTPConn follows the state of a connection of Serve, and closes new ones beyond Options.MaxSockets.
func (s *Server) countHTTPConn(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if !s.httpConns.add(conn, s.clock(), s.counters.open.Load(), s.settings.Load().MaxSockets) {
			s.counters.refusedSockets.Add(1)
			_ = outbox.CloseSocket(conn) // StateClosed follows
		}
	case http.StateActive:
		s.httpConns.busy(conn)
	case http.StateIdle:
		s.httpConns.wait(conn, s.clock())
	case http.StateClosed, http.StateHijacked:
		s.httpConns.remove(conn)
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
	control http.ResponseController
	all     *bodies
}

// add returns a request whose body has a deadline, and that body, or nil if the connection has no deadlines. The given
// request stays as it is, because net/http finds out by its body how to end the request.
func (b *bodies) add(w http.ResponseWriter, r *http.Request, timeout time.Duration) (*http.Request, *timedBody) {
	body := &timedBody{r.Body, *http.NewResponseController(w), b}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.draining {
		timeout = min(timeout, drainBodyTimeout)
	}
	// Response writers of an embedder's may not support deadlines.
	if body.control.SetReadDeadline(time.Now().Add(timeout)) != nil {
		return r, nil
	}
	if b.reading == nil {
		b.reading = make(map[*timedBody]struct{})
	}
	b.reading[body] = struct{}{}
	timed := r.WithContext(r.Context())
	timed.Body = body
	return timed, body
}

// done notes that the handler is done with the body, which may be nil.
func (t *timedBody) done() {
	if t != nil {
		t.all.remove(t)
	}
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

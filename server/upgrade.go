package server

import (
	"bufio"
	"crypto/sha1" //nolint:gosec // RFC 6455 wants it
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"github.com/shoal-go/shoal/manager"
)

// subprotocolV1 is the subprotocol of recovery, acknowledgements and errors.
const subprotocolV1 = "shoal.v1"

// Headers of the handshake in the canonical form of net/http: any other form costs an allocation per lookup.
const (
	headerKey      = "Sec-Websocket-Key"
	headerVersion  = "Sec-Websocket-Version"
	headerProtocol = "Sec-Websocket-Protocol"
)

// newUpgrader returns the upgrader of the readers' gws connections.
func newUpgrader(opt Options) *gws.Upgrader {
	return gws.NewUpgrader(gwsHandler{}, &gws.ServerOption{
		ReadMaxPayloadSize: opt.MaxClientMessageBytes,
		CheckUtf8Enabled:   true,
		NewSession:         func() gws.SessionStorage { return noSession{} },
		Logger:             gwsLogger{opt.Logger},
	})
}

// upgrade answers GET /ws/uploads. Its frame stays small, and with it the stack of the goroutine: what happens before
// the connection is accepted has a frame of its own.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	peer := s.peer(r)
	id, since, granted := s.grant(w, r, peer)
	if !granted {
		return
	}
	c, early, err := s.accept(w, r, peer)
	if err != nil {
		s.opt.Logger.Debug("upgrade failed", "remote", peer, "error", err)
		return
	}
	c.input.handling.Store(true)
	c.watchInput()
	defer c.start(early)   // also after a hook has ended the goroutine
	if s.draining.Load() { // Drain sets the flag before it lists the connections, so one of the two closes c
		c.Close(manager.ServerReloading)
	}
	token := bearer(r)
	c.guard(func() { c.begin(id, since, token) })
}

// grant decides whether a request gets a WebSocket, and refuses it otherwise. A granted one has been admitted; id is
// the identity that Options.Identify has found since a moment, nil without that hook.
func (s *Server) grant(
	w http.ResponseWriter, r *http.Request, peer netip.Addr,
) (id *Identity, since manager.Moment, granted bool) {
	if !s.originAllowed(r) {
		s.refuse(w, r, &s.counters.refusedOrigin, newProblem(http.StatusForbidden, "origin not allowed"))
		return nil, since, false
	}
	if problem := checkHandshake(r); problem != nil {
		s.refuse(w, r, &s.counters.refusedHandshake, problem)
		return nil, since, false
	}
	// The limits come first: they bound the calls of Identify too.
	if refused := s.admit(peer); refused != nil {
		s.refuse(w, r, refused.count, refused.problem)
		return nil, since, false
	}
	s.httpConns.share(r, 1)
	since = s.manager.Moment()
	if s.opt.Identify == nil {
		return nil, since, true
	}
	defer func() { // also after a panic of the hook, which net/http recovers
		if !granted {
			s.abandon(r, nil, peer)
		}
	}()
	identity, problem := s.identify(r)
	if problem != nil {
		s.refuse(w, r, &s.counters.refusedIdentity, problem)
		return nil, since, false
	}
	return &identity, since, true
}

// refuse answers a request for a WebSocket that is not granted, and counts it under its cause.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, count *atomic.Uint64, problem *apiProblem) {
	maps.Copy(w.Header(), problem.header)
	s.refused(w, r, "upgrade refused", count, problem)
	http.Error(w, problem.Detail, problem.Status)
}

// refused counts and logs a request for a WebSocket or an event stream that is not granted, ahead of its answer.
func (s *Server) refused(
	w http.ResponseWriter, r *http.Request, event string, count *atomic.Uint64, problem *apiProblem,
) {
	count.Add(1)
	s.opt.Logger.Debug(event, "remote", s.peer(r), "status", problem.Status, "reason", problem.Detail)
	// A body that follows is not read, so the connection cannot be used again.
	if r.ProtoMajor == 1 && hasBody(r) {
		w.Header().Set("Connection", "close")
	}
}

// accept hijacks the connection of an admitted request, answers the handshake and lists the client. Otherwise, also
// after a panic of a middleware, it closes the connection and releases it. early holds bytes that the HTTP server has
// read ahead.
func (s *Server) accept(w http.ResponseWriter, r *http.Request, peer netip.Addr) (c *Client, early []byte, err error) {
	var conn net.Conn
	var buffer *bufio.ReadWriter
	listed := false
	defer func() {
		if !listed {
			s.abandon(r, conn, peer)
		}
	}()
	if conn, buffer, err = hijack(w); err != nil {
		s.hijackFailed(w, err)
		http.Error(w, "this connection cannot become a WebSocket: a middleware hides http.Hijacker",
			http.StatusInternalServerError)
		return nil, nil, err
	}
	v1 := offersV1(r.Header)
	if err := s.switchProtocols(conn, r, v1); err != nil {
		return nil, nil, err
	}
	if buffer != nil && buffer.Reader != nil { // a middleware may return none
		early = make([]byte, buffer.Reader.Buffered())
		_, _ = buffer.Reader.Read(early) // buffered, so it cannot fail
	}
	c = newClient(s, conn, v1)
	c.peer = peer
	s.keepalive.add(c)
	listed = true
	return c, early, nil
}

// errNoConnection is the error of a hijacker that returns nothing.
var errNoConnection = errors.New("server: the hijacker has returned no connection")

// hijack takes over the connection of a request.
func hijack(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(w).Hijack()
	switch {
	case err != nil:
		return nil, nil, err
	case conn == nil:
		return nil, nil, errNoConnection
	}
	return conn, buffer, nil
}

// abandon releases the admitted connection of a request that has no client, and closes it if it was taken over.
func (s *Server) abandon(r *http.Request, conn net.Conn, peer netip.Addr) {
	s.httpConns.share(r, -1)
	s.release(peer)
	if conn != nil {
		_ = conn.Close()
	}
}

// hijackFailed counts and logs a connection that cannot be taken over.
func (s *Server) hijackFailed(w http.ResponseWriter, err error) {
	s.counters.hijackFailed.Add(1)
	s.logs.hijack.Log(s.opt.Logger, slog.LevelError, "upgrade failed: the response writer cannot be hijacked",
		"type", fmt.Sprintf("%T", w), "remedy", "give the middleware's response writer a method Unwrap", "error", err)
}

// switchProtocols answers a valid handshake (RFC 6455, 4.2.2).
func (s *Server) switchProtocols(conn net.Conn, r *http.Request, v1 bool) error {
	const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	answer := make([]byte, 0, 256)
	answer = append(append(answer, r.Header.Get(headerKey)...), guid...)
	sum := sha1.Sum(answer) //nolint:gosec // RFC 6455 wants it
	answer = append(answer[:0], "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: "...)
	answer = base64.StdEncoding.AppendEncode(answer, sum[:])
	if v1 {
		answer = append(answer, "\r\nSec-WebSocket-Protocol: "+subprotocolV1...)
	}
	answer = append(answer, "\r\n\r\n"...)
	if err := conn.SetWriteDeadline(time.Now().Add(s.opt.AuthTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(answer); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// checkHandshake returns the problem of a WebSocket handshake (RFC 6455, 4.2.1), or nil. A handshake has no body: its
// bytes would be read as frames, which a proxy in front did not see.
func checkHandshake(r *http.Request) *apiProblem {
	switch {
	case r.ProtoMajor != 1:
		return upgradeRequired(r, "a WebSocket is opened with HTTP/1.1, not "+r.Proto)
	case r.ProtoMinor == 0:
		return newProblem(http.StatusBadRequest, "a WebSocket is opened with HTTP/1.1, not HTTP/1.0")
	case !listed(r.Header, "Upgrade", ignoreCase("websocket")):
		return upgradeRequired(r, "this is a WebSocket endpoint: the header Upgrade must be websocket")
	case !listed(r.Header, "Connection", ignoreCase("upgrade")):
		return upgradeRequired(r, "this is a WebSocket endpoint: the header Connection must contain Upgrade")
	case len(r.Header[headerVersion]) > 1:
		return newProblem(http.StatusBadRequest, "the header Sec-WebSocket-Version occurs more than once")
	case r.Header.Get(headerVersion) != "13":
		return upgradeRequired(r, "the header Sec-WebSocket-Version must be 13")
	case len(r.Header[headerKey]) == 0:
		return newProblem(http.StatusBadRequest, "the header Sec-WebSocket-Key is missing")
	case len(r.Header[headerKey]) > 1:
		return newProblem(http.StatusBadRequest, "the header Sec-WebSocket-Key occurs more than once")
	case !goodKey(r.Header.Get(headerKey)):
		return newProblem(http.StatusBadRequest, "the header Sec-WebSocket-Key must be 16 bytes in base64")
	case len(r.Header["Authorization"]) > 1:
		return newProblem(http.StatusBadRequest, "the header Authorization occurs more than once")
	case hasBody(r):
		return newProblem(http.StatusBadRequest,
			"a WebSocket handshake has no body: leave out Content-Length and Transfer-Encoding")
	}
	return nil
}

// upgradeRequired is the problem of a request that does not ask for a WebSocket of version 13.
func upgradeRequired(r *http.Request, detail string) *apiProblem {
	p := newProblem(http.StatusUpgradeRequired, detail)
	p.header.Set(headerVersion, "13")
	if r.ProtoMajor == 1 { // HTTP/2 forbids these headers (RFC 9113, 8.2.2)
		p.header.Set("Connection", "Upgrade")
		p.header.Set("Upgrade", "websocket")
	}
	return p
}

// hasBody reports whether a request announces a body, as far as net/http tells.
func hasBody(r *http.Request) bool { return r.ContentLength != 0 || len(r.TransferEncoding) > 0 }

// goodKey reports whether a key is 16 bytes in base64.
func goodKey(key string) bool {
	const size = 16
	var nonce [size + 2]byte // room for a key without padding, which is longer
	if len(key) != base64.StdEncoding.EncodedLen(size) {
		return false
	}
	n, err := base64.StdEncoding.Decode(nonce[:], []byte(key))
	return err == nil && n == size
}

func offersV1(h http.Header) bool {
	return listed(h, headerProtocol, func(v string) bool { return v == subprotocolV1 })
}

// listed reports whether a header that is a list, perhaps over several lines, has a value that matches.
func listed(h http.Header, name string, match func(string) bool) bool {
	return slices.ContainsFunc(h.Values(name), func(line string) bool {
		for v := range strings.SplitSeq(line, ",") {
			if match(strings.TrimSpace(v)) {
				return true
			}
		}
		return false
	})
}

func ignoreCase(want string) func(string) bool {
	return func(v string) bool { return strings.EqualFold(v, want) }
}

// refusal is why a new connection is refused.
type refusal struct {
	count   *atomic.Uint64
	problem *apiProblem
}

// admit counts a new connection of a peer, or returns why it is refused: the server is draining or full, the peer has
// too many connections, or connections come too fast. An admitted connection must be released.
func (s *Server) admit(peer netip.Addr) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	later := func(count *atomic.Uint64, status int, detail string) *refusal {
		problem := newProblem(status, detail)
		problem.header.Set("Retry-After", "5")
		return &refusal{count, problem}
	}
	busy := func(count *atomic.Uint64) *refusal {
		return later(count, http.StatusServiceUnavailable, "no new connections now, try again later")
	}
	key, limits := bucket(peer), s.settings.Load()
	switch {
	case s.draining.Load():
		return busy(&s.counters.refusedDraining)
	case limits.MaxConnections > 0 && s.counters.open.Load() >= int64(limits.MaxConnections):
		return busy(&s.counters.refusedFull)
	case limits.MaxConnectionsPerIP > 0 && key.IsValid() && s.perPeer[key] >= limits.MaxConnectionsPerIP:
		return later(&s.counters.refusedPerIP, http.StatusTooManyRequests, "too many connections from this address")
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

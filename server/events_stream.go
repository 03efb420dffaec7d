package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/outbox"
	"github.com/shoal-go/shoal/manager"
)

// openEvents opens the stream of a request. Where the connection is that of a response it blocks until the stream has
// ended.
func (s *Server) openEvents(conn eventsConn, c *Client, request *eventsRequest) {
	conn.watch(c)
	defer conn.wait(c)
	answered := false
	defer func() {
		if !answered { // a hook has ended the goroutine, or the response writer of a middleware has panicked
			c.Abort()
			c.out.Reject(rawFrame(nil))
		}
	}()
	if s.draining.Load() { // Drain sets the flag before it lists the connections, so one of the two closes c
		c.Close(manager.ServerReloading)
	}
	problem := newProblem(http.StatusInternalServerError, "internal error; see the log of the server") // after a panic
	c.guard(func() { problem = c.join(request) })
	if problem == nil {
		head := conn.head(http.StatusOK, eventsHeader)
		c.out.Uncork(rawFrame(append(append(head, retryField()...), '\n', '\n')))
	} else {
		s.opt.Logger.Debug("event stream refused",
			"remote", request.peer, "status", problem.Status, "reason", problem.Detail)
		body := encodeJSON(problem)
		c.out.Reject(rawFrame(append(conn.head(problem.Status, problem.headerOf(body)), body...)))
	}
	answered = true
}

// eventsHeader are the header fields of a stream. They keep proxies from buffering, storing and compressing it.
var eventsHeader = http.Header{
	"Content-Type":      {"text/event-stream"},
	"Cache-Control":     {"no-store, no-transform"},
	"X-Accel-Buffering": {"no"},
}

// join registers the connection and subscribes it to its uploads, or returns the problem. It may be called once.
func (c *Client) join(request *eventsRequest) *apiProblem {
	switch err := c.register(request.identity, request.identified, false); {
	case errors.Is(err, manager.ErrTooManyConnections):
		return newProblem(http.StatusTooManyRequests, "the user has as many connections as are allowed")
	case errors.Is(err, errNotEntered), errors.Is(err, manager.ErrClosed):
		return nil // the connection is closing, and its last event gives the reason
	case err != nil:
		return newProblem(http.StatusInternalServerError, "internal error; see the log of the server")
	}
	c.fail(errorMessage{Code: codeForbidden, Message: "you may not follow this upload"}, request.forbidden...)
	ctx, cancel := context.WithTimeout(c.server.ctx, c.server.opt.HookTimeout)
	defer cancel()
	defer c.claims.because(ReasonClient, c.events.ids...)()
	var beyond []string
	for _, uploadID := range request.uploads {
		opt := manager.SubscribeOptions{Acknowledge: true}
		if since, given := request.since[uploadID]; given {
			position := manager.Position(since)
			opt.Since = &position
		}
		switch err := c.server.manager.SubscribeConn(ctx, request.identity.UserID, c, uploadID, opt); {
		case err == nil:
		case errors.Is(err, manager.ErrTooManySubscriptions):
			beyond = append(beyond, uploadID)
		case errors.Is(err, manager.ErrNotConnected), errors.Is(err, manager.ErrClosed):
			return nil
		default:
			return unavailable("the nodes cannot reach each other now, try again later")
		}
	}
	const limit = "the user follows as many uploads as are allowed"
	if len(beyond) == len(request.uploads) {
		return newProblem(http.StatusTooManyRequests, limit)
	}
	c.fail(errorMessage{Code: codeLimitExceeded, Message: limit}, beyond...)
	return nil
}

// eventUploads are the uploads of a stream. A stream gets messages of these only, although subscriptions belong to the
// user: its ids hold the positions of these uploads.
type eventUploads struct {
	ids []string // sorted
	// begun: the acknowledgement of the upload's subscription has been queued. Earlier messages come because another
	// connection follows the upload, and the subscription brings them again.
	begun []atomic.Bool
}

func newEventUploads(ids []string) *eventUploads {
	return &eventUploads{ids: slices.Sorted(slices.Values(ids)), begun: make([]atomic.Bool, len(ids))}
}

// accepts reports whether the stream gets a message.
func (e *eventUploads) accepts(f *frame.Frame) bool {
	if f.UploadID() == "" {
		return true
	}
	i, found := slices.BinarySearch(e.ids, f.UploadID())
	return found && e.begun[i].Load()
}

// acceptsReplay reports whether the stream gets the stored messages of a replay, as it does from its own subscription
// on.
func (e *eventUploads) acceptsReplay(r manager.Replay) bool {
	i, found := slices.BinarySearch(e.ids, r.UploadID)
	if !found {
		return false
	}
	if !e.begun[i].Load() {
		if len(r.Frames) == 0 {
			return false
		}
		if _, acknowledges := r.Frames[0].Start(); !acknowledges {
			return false
		}
		e.begun[i].Store(true)
	}
	return true
}

// eventsConn is the connection of an event stream.
type eventsConn interface {
	net.Conn
	// head sends the status and the header of the response, or returns the bytes that do so.
	head(status int, header http.Header) []byte
	// watch has the contexts of the client's hooks end with the connection.
	watch(c *Client)
	// wait has the client end with its connection, after watch. It may block until then.
	wait(c *Client)
}

// eventsConn returns the connection of a request: the connection itself where it can be taken over, and else the stream
// of its response, as with HTTP/2. It returns the error of the hijacker, or http.ErrNotSupported where the response
// cannot be sent piece by piece.
func (s *Server) eventsConn(w http.ResponseWriter, r *http.Request) (eventsConn, error) {
	err := fmt.Errorf("the response writer cannot flush: %w", http.ErrNotSupported)
	if r.ProtoMajor == 1 {
		var conn net.Conn
		if conn, _, err = hijack(w); err == nil {
			return &hijackedConn{conn, w.Header()}, nil
		}
	}
	if canFlush(w) {
		return newResponseConn(w, r), nil
	}
	return nil, err
}

// canFlush reports whether a response writer has a method that sends written data at once.
func canFlush(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case http.Flusher, interface{ FlushError() error }:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

// hijackedConn is a connection of HTTP/1 that has been taken over. Its response ends with the connection.
type hijackedConn struct {
	net.Conn
	// header are the fields that middleware has set.
	header http.Header
}

// bypassedHeader are the fields of middleware that are not part of the response: they describe a body or a connection
// that it does not use.
var bypassedHeader = []string{
	"Connection", "Date", "Keep-Alive", "Trailer", "Transfer-Encoding", "Upgrade",
	"Accept-Ranges", "Content-Digest", "Content-Encoding", "Content-Length", "Content-Md5", "Content-Range", "Digest",
	"Etag", "Last-Modified", "Repr-Digest",
}

func (h *hijackedConn) head(status int, header http.Header) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nDate: %s\r\nConnection: close\r\n", status, http.StatusText(status),
		time.Now().UTC().Format(http.TimeFormat))
	all := h.header.Clone()
	h.header = nil // for the garbage collector
	for _, name := range bypassedHeader {
		delete(all, name)
	}
	for name, values := range header {
		all[name] = values
	}
	_ = all.Write(&b) // to memory
	b.WriteString("\r\n")
	return b.Bytes()
}

func (h *hijackedConn) watch(c *Client) { c.watchEnd() }

func (h *hijackedConn) wait(c *Client) { c.endWithInput() }

// responseConn writes to the response of a request whose connection cannot be taken over. Its methods may be called
// from any number of goroutines until the handler of the request returns.
type responseConn struct {
	net.Conn // nil: the other methods are not called
	w        http.ResponseWriter
	request  *http.Request
	control  *http.ResponseController
	// done is closed when nothing more is to be written.
	done   chan struct{}
	finish func()
}

func newResponseConn(w http.ResponseWriter, r *http.Request) *responseConn {
	done := make(chan struct{})
	return &responseConn{
		w: w, request: r, control: http.NewResponseController(w), done: done, finish: sync.OnceFunc(func() { close(done) }),
	}
}

func (c *responseConn) head(status int, header http.Header) []byte {
	c.w.Header().Del("Content-Length") // of a middleware, which does not know the body
	for name, values := range header {
		c.w.Header()[name] = values
	}
	// The deadlines of the server are for other requests; the outbox has its own.
	_ = c.control.SetWriteDeadline(time.Time{})
	_ = c.control.SetReadDeadline(time.Time{})
	c.w.WriteHeader(status)
	return nil
}

func (c *responseConn) watch(client *Client) {
	context.AfterFunc(c.request.Context(), client.endContexts)
}

// wait blocks until the client has left or the outbox has written everything.
func (c *responseConn) wait(client *Client) {
	select {
	case <-c.request.Context().Done():
	case <-c.done:
	}
	client.end()
	client.server.httpConns.share(c.request, -1)
}

func (c *responseConn) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, c.control.Flush()
}

// CloseWrite ends the response when the handler returns.
func (c *responseConn) CloseWrite() error {
	c.finish()
	return nil
}

// Close ends a blocked Write, unless everything has been written.
func (c *responseConn) Close() error {
	select {
	case <-c.done:
		return nil
	default:
	}
	c.finish()
	return c.control.SetWriteDeadline(time.Unix(1, 0))
}

// Read returns io.EOF: a client sends nothing after its request.
func (c *responseConn) Read([]byte) (int, error) { return 0, io.EOF }

// RemoteAddr returns the address of the peer.
func (c *responseConn) RemoteAddr() net.Addr {
	addr, _ := netip.ParseAddrPort(c.request.RemoteAddr)
	return net.TCPAddrFromAddrPort(addr)
}

// newEventsClient returns the client of an event stream. Its outbox is corked.
func newEventsClient(s *Server, conn eventsConn, request *eventsRequest) *Client {
	c := &Client{server: s, v1: true, events: newEventUploads(request.uploads), peer: request.peer}
	if hijacked, ok := conn.(*hijackedConn); ok {
		c.attach(hijacked.Conn)
	} else {
		c.attach(conn)
	}
	c.out = s.writers.Open(c.conn(), outbox.Config{
		Variant: frame.V1, Raw: c.input.raw, Overflow: c.onOverflow,
		Events: frame.NewEventEncoder(request.uploads, request.since), Corked: true,
	})
	c.claims = s.newClaimQueue()
	c.limitAge()
	return c
}

// maxEventsInput is how much a client may send after its request, where that must be read to notice its end.
const maxEventsInput = 64 << 10

// watchEnd has the poller report the end of the client's input. Nothing is read from the client: its bytes fill the
// receive buffer of the kernel, and its end is reported all the same.
func (c *Client) watchEnd() {
	if raw := c.descriptorAccess(); raw != nil {
		c.input.watched = c.server.poller.watchHangUp(c, raw)
	}
}

// endWithInput has the client end when its input does, after watchEnd. It does not block.
func (c *Client) endWithInput() {
	if c.input.watched && c.input.park() {
		return
	}
	c.server.readers.running.Go(func() {
		defer c.end() // also after a panic of the connection
		if !c.input.watched {
			c.guard(func() {
				if _, err := io.CopyN(io.Discard, c.conn(), maxEventsInput); err == nil {
					c.Close(manager.TooManyMessages)
				}
			})
		}
	})
}

// rawFrame returns a frame with the bytes of an event stream.
func rawFrame(bytes []byte) *frame.Frame { return frame.New(frame.Raw, frame.Control, bytes) }

// retryField returns the bytes that tell a browser when to connect again after the connection has ended, which is drawn
// for each connection.
func retryField() []byte {
	return strconv.AppendInt([]byte("retry: "), retryAfterMillis(), 10)
}

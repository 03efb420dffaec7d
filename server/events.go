package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// eventsPath is the path of a stream of several uploads; a further segment is the id of a single one.
const eventsPath = "/events/uploads"

// isEvents reports whether a request is for an event stream.
func isEvents(r *http.Request) bool {
	rest, found := strings.CutPrefix(r.URL.EscapedPath(), eventsPath)
	return found && (rest == "" || rest[0] == '/' && !strings.Contains(rest[1:], "/"))
}

// serveEvents answers a request for an event stream.
//
// Everything that can refuse the stream is decided before the status line is sent, because a browser's EventSource sees
// nothing else: the connection is registered and subscribed while its outbox is corked.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	r, done := s.boundBody(w, r, refusedBodyTimeout)
	defer done()
	w.Header().Add("Vary", "Origin")
	if !s.originAllowed(r) {
		s.refuseEvents(w, r, &s.counters.refusedOrigin, newProblem(http.StatusForbidden, "origin not allowed"))
		return
	}
	allowPage(w, r)
	if r.Method == http.MethodOptions && isPreflight(r) {
		writeNoContent(w)
		return
	}
	request, problem := parseEventsRequest(r)
	if problem != nil {
		s.refuseEvents(w, r, &s.counters.refusedHandshake, problem)
		return
	}
	request.peer = s.peer(r)
	if refused := s.admit(request.peer); refused != nil {
		problem := newProblem(refused.status, refused.problem)
		refused.setHeader(problem.header)
		s.refuseEvents(w, r, refused.count, problem)
		return
	}
	s.counters.eventStreams.Add(1)
	opened := false
	defer func() { // also after a panic of a hook, which net/http recovers
		if !opened {
			s.counters.eventStreams.Add(-1)
			s.release(request.peer)
		}
	}()
	if problem := s.decideEvents(r, request); problem != nil {
		s.refuseEvents(w, r, &s.counters.refusedIdentity, problem)
		return
	}
	conn, err := s.eventsConn(w, r)
	if err != nil {
		s.hijackFailed(w, err)
		writeProblem(w, r, s.opt.Logger, newProblem(http.StatusInternalServerError,
			"this connection cannot carry a stream: a middleware hides http.Hijacker and http.Flusher"))
		return
	}
	opened = true
	s.openEvents(conn, request)
}

// refuseEvents answers a request for a stream that is not granted, and counts it under its cause.
func (s *Server) refuseEvents(w http.ResponseWriter, r *http.Request, count *atomic.Uint64, problem *apiProblem) {
	count.Add(1)
	s.opt.Logger.Debug("event stream refused", "remote", s.peer(r), "status", problem.Status, "reason", problem.Detail)
	if r.ProtoMajor == 1 && hasBody(r) { // which is not read, so the connection cannot be used again
		w.Header().Set("Connection", "close")
	}
	writeProblem(w, r, s.opt.Logger, problem)
}

// allowPage lets the page of an allowed origin read the answer (CORS).
func allowPage(w http.ResponseWriter, r *http.Request) {
	if page := r.Header.Get("Origin"); page != "" {
		w.Header().Set("Access-Control-Allow-Origin", page)
		w.Header().Set("Access-Control-Allow-Credentials", "true")
	}
	if isPreflight(r) {
		w.Header().Set("Access-Control-Allow-Methods", http.MethodGet)
		w.Header().Set("Access-Control-Allow-Headers", "Authorization, Cache-Control, Last-Event-ID")
		w.Header().Set("Access-Control-Max-Age", "600")
	}
}

// isPreflight reports whether a browser asks for permission to send a request with an Authorization header.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" &&
		r.Header.Get("Access-Control-Request-Method") != ""
}

// decideEvents sets the identity of a request and the uploads that it may follow, or returns the problem. Uploads that
// the user may not follow are left out if there are others.
func (s *Server) decideEvents(r *http.Request, request *eventsRequest) *apiProblem {
	ctx, cancel := context.WithTimeout(r.Context(), s.opt.HookTimeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	var problem *apiProblem
	if request.identity, problem = s.identifyEvents(ctx, r, request.token); problem != nil {
		return problem
	}
	defer s.requestHooks.run("Authorize")()
	var panicked atomic.Bool
	answers := s.authorizeAll(ctx, request.identity, request.uploads, func(problem any) {
		s.panicked(problem, request.identity.UserID)
		panicked.Store(true)
	})
	if panicked.Load() {
		return newProblem(http.StatusInternalServerError, "internal error; see the log of the server")
	}
	var allowed []string
	for i, uploadID := range request.uploads {
		switch err := answers[i]; {
		case err == nil:
			allowed = append(allowed, uploadID)
		case errors.Is(err, ErrForbidden):
			s.forbidden(request.identity.UserID, uploadID, transportEvents)
			request.forbidden = append(request.forbidden, uploadID)
		default:
			if r.Context().Err() == nil { // the client has not left
				s.authorizeFailed(request.identity.UserID, err)
			}
			return unavailable("authorization is not possible now, try again later")
		}
	}
	request.uploads = allowed
	if len(allowed) == 0 {
		return newProblem(http.StatusForbidden, "you may not follow any upload of this stream")
	}
	return nil
}

// identifyEvents returns the owner of a request: by Options.Identify, or by its token.
func (s *Server) identifyEvents(ctx context.Context, r *http.Request, token string) (Identity, *apiProblem) {
	if s.opt.Identify != nil {
		id, status, text := s.identify(r)
		switch status {
		case 0:
			return id, nil
		case http.StatusServiceUnavailable:
			return id, unavailable(text)
		}
		return id, newProblem(status, text)
	}
	if token == "" {
		return Identity{}, unauthorized(bearerChallenge,
			"a token is missing; send it as Authorization: Bearer <token>, or as the parameter access_token")
	}
	defer s.requestHooks.run("Authenticate")()
	id, err := s.checkToken(ctx, token)
	var refused *TokenError
	switch {
	case err == nil:
		return id, nil
	case errors.As(err, &refused):
		s.tokenRefused(refused, s.peer(r).String())
		problem := unauthorized(bearerChallenge+`, error="invalid_token"`, refused.Message)
		problem.Code = refused.code()
		return id, problem
	case r.Context().Err() == nil:
		s.authenticateFailed(err)
	}
	return id, unavailable("authentication is not possible now, try again later")
}

// openEvents opens the stream of an admitted request. With HTTP/1.1 it takes over the connection, otherwise it blocks
// until the stream has ended.
func (s *Server) openEvents(conn eventsConn, request *eventsRequest) {
	c := newEventsClient(s, conn, request)
	s.keepalive.add(c)
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
	conn.wait(c)
}

// eventsHeader are the header fields of a stream. They keep proxies from buffering, storing and compressing it.
var eventsHeader = http.Header{
	"Content-Type":      {"text/event-stream"},
	"Cache-Control":     {"no-store, no-transform"},
	"X-Accel-Buffering": {"no"},
}

// join registers the connection and subscribes it to its uploads, or returns the problem. It may be called once.
func (c *Client) join(request *eventsRequest) *apiProblem {
	switch err := c.register(request.identity, false); {
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

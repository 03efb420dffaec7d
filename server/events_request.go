package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// eventsPath is the path of a stream of several uploads; a further segment is the id of a single one.
const eventsPath = "/events/uploads"

// eventsMethods are the methods of a stream.
const eventsMethods = "GET, HEAD, OPTIONS"

// The routes of a stream of several uploads and of a single one.
var (
	eventsRoute      = newRoute(eventsPath, nil)
	eventsOfOneRoute = newRoute(eventsPath+"/{upload_id}", nil)
)

// isEvents reports whether a request is for an event stream.
func isEvents(r *http.Request) bool {
	path := strings.Split(r.URL.EscapedPath(), "/")
	_, ofSeveral := eventsRoute.match(path)
	_, ofOne := eventsOfOneRoute.match(path)
	return ofSeveral || ofOne
}

// eventsUpload returns the upload in the path of a request, if there is one.
func eventsUpload(r *http.Request) (uploadID string, ofOne bool) {
	return eventsOfOneRoute.match(strings.Split(r.URL.EscapedPath(), "/"))
}

// serveEvents answers a request for an event stream.
//
// Everything that can refuse the stream is decided before the status line is sent, because a browser's EventSource sees
// nothing else: the connection is registered and subscribed while its outbox is corked.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	r, body := s.boundBody(w, r, refusedBodyTimeout)
	defer body.done()
	w.Header().Add("Vary", "Origin")
	if isEmbedded(r) || !s.originAllowed(r) {
		s.refuseEvents(w, r, &s.counters.refusedOrigin, newProblem(http.StatusForbidden, "origin not allowed"))
		return
	}
	allowPage(w, r)
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", eventsMethods)
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
		s.refuseEvents(w, r, refused.count, refused.problem)
		return
	}
	s.serveAdmitted(w, r, request)
}

// serveAdmitted answers an admitted request for a stream, and releases it unless it becomes a stream.
func (s *Server) serveAdmitted(w http.ResponseWriter, r *http.Request, request *eventsRequest) {
	s.httpConns.share(r, 1)
	s.counters.eventStreams.Add(1)
	var conn eventsConn
	listed := false
	defer func() { // also after a panic of a hook or a middleware, which net/http recovers
		if !listed {
			s.counters.eventStreams.Add(-1)
			s.abandon(r, conn, request.peer)
		}
	}()
	if problem := s.decideEvents(r, request); problem != nil {
		s.refuseEvents(w, r, &s.counters.refusedIdentity, problem)
		return
	}
	if r.Method == http.MethodHead { // the header of the stream, without the stream (RFC 9110, 9.3.2)
		maps.Copy(w.Header(), eventsHeader)
		w.WriteHeader(http.StatusOK)
		return
	}
	var err error
	if conn, err = s.eventsConn(w, r); err != nil {
		s.hijackFailed(w, err)
		writeProblem(w, r, s.opt.Logger, newProblem(http.StatusInternalServerError,
			"this connection cannot carry a stream: a middleware hides http.Hijacker and http.Flusher"))
		return
	}
	c := newEventsClient(s, conn, request)
	s.keepalive.add(c)
	listed = true
	s.openEvents(conn, c, request)
}

// refuseEvents answers a request for a stream that is not granted, and counts it under its cause.
func (s *Server) refuseEvents(w http.ResponseWriter, r *http.Request, count *atomic.Uint64, problem *apiProblem) {
	s.refused(w, r, "event stream refused", count, problem)
	writeProblem(w, r, s.opt.Logger, problem)
}

// isEmbedded reports whether a page of another site has the browser request the stream without being able to read it,
// as an image does: unlike EventSource and fetch this has no Origin, but the user's cookies.
func isEmbedded(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Header.Get("Origin") == "" && (site == "cross-site" || site == "same-site")
}

// allowPage lets the page of an allowed origin read the answer (CORS).
func allowPage(w http.ResponseWriter, r *http.Request) {
	if page := r.Header.Get("Origin"); page != "" {
		w.Header().Set("Access-Control-Allow-Origin", page)
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Access-Control-Expose-Headers", "Retry-After")
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
	ctx, cancel := s.hookContext(r)
	defer cancel()
	var problem *apiProblem
	request.identified = s.manager.Moment()
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
			if s.awaits(r) {
				s.authorizeFailed(request.identity.UserID, err)
			}
			return unavailable("authorization is not possible now, try again later")
		}
	}
	request.uploads = allowed
	switch {
	case len(allowed) == 0:
		return newProblem(http.StatusForbidden, "you may not follow any upload of this stream")
	case s.ctx.Err() != nil:
		return shuttingDown()
	}
	return nil
}

// identifyEvents returns the owner of a request: by Options.Identify, or by its token.
func (s *Server) identifyEvents(ctx context.Context, r *http.Request, token string) (Identity, *apiProblem) {
	if s.opt.Identify != nil {
		return s.identify(r)
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
	case s.awaits(r):
		s.authenticateFailed(err)
	}
	return id, unavailable("authentication is not possible now, try again later")
}

// eventsRequest is a request for an event stream.
type eventsRequest struct {
	uploads []string
	// since are the positions of uploads from which the client continues.
	since    map[string]frame.Start
	token    string
	peer     netip.Addr
	identity Identity
	// identified is the moment before the user was identified.
	identified manager.Moment
	// forbidden are uploads that the user may not follow.
	forbidden []string
}

// The parameters of an event stream.
const (
	paramToken  = "access_token"
	paramLastID = "last_event_id"
	paramUpload = "id"
	headerLast  = "Last-Event-Id" // in the canonical form of net/http
)

// parseEventsRequest decodes a request for a stream. The problem repeats neither a token nor an id.
func parseEventsRequest(r *http.Request) (*eventsRequest, *apiProblem) {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		problem := newProblem(http.StatusMethodNotAllowed, "an event stream is opened with GET")
		problem.header.Set("Allow", eventsMethods)
		return nil, problem
	case hasBody(r):
		return nil, newProblem(http.StatusBadRequest, "a request for an event stream has no body")
	}
	query, problem := eventsQuery(r)
	if problem != nil {
		return nil, problem
	}
	request := &eventsRequest{uploads: query[paramUpload], token: bearer(r)}
	if request.uploads, problem = eventsUploads(r, query); problem != nil {
		return nil, problem
	}
	if token := query.Get(paramToken); token != "" {
		if hasBearer(r) {
			return nil, invalidField(paramToken, "must not be given beside the header Authorization: Bearer")
		}
		request.token = token
	}
	field, last := "Last-Event-ID", r.Header.Get(headerLast)
	if len(r.Header.Values(headerLast)) > 1 {
		return nil, invalidField(field, "must not be given twice")
	}
	// EventSource repeats the address of the first request, so the header is newer.
	if last == "" {
		field, last = paramLastID, query.Get(paramLastID)
	}
	if last != "" {
		var err error
		if request.since, err = frame.ParseEventID(last, request.uploads); err != nil {
			return nil, invalidField(field, err.Error())
		}
	}
	return request, nil
}

// eventsQuery returns the parameters of a request. Like the API it refuses parameters that are unknown.
func eventsQuery(r *http.Request) (url.Values, *apiProblem) {
	known := []string{paramToken, paramLastID}
	if _, ofOne := eventsUpload(r); !ofOne {
		known = append(known, paramUpload)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalidField("query", "is malformed; special characters in it must be percent-encoded")
	}
	for name, values := range query {
		switch {
		case !slices.Contains(known, name):
			return nil, invalidField("query", "has an unknown parameter; known are "+strings.Join(known, ", "))
		case name != paramUpload && len(values) > 1:
			return nil, invalidField(name, "must not be given twice")
		}
	}
	return query, nil
}

// eventsUploads returns the uploads of a request.
func eventsUploads(r *http.Request, query url.Values) ([]string, *apiProblem) {
	ids, name := query[paramUpload], paramUpload
	if id, ofOne := eventsUpload(r); ofOne {
		ids, name = []string{id}, "upload_id"
	}
	switch n := len(ids); {
	case n == 0:
		return nil, invalidField(paramUpload, "is missing; give it once for each upload")
	case n > frame.MaxEventUploads:
		return nil, invalidField(paramUpload, fmt.Sprintf(
			"is given %d times, at most %d uploads fit in one stream; a WebSocket can follow more", n, frame.MaxEventUploads))
	}
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if err := manager.CheckID(name, id); err != nil {
			return nil, problemOf(err)
		}
		if seen[id] {
			return nil, invalidField(name, "names an upload twice")
		}
		seen[id] = true
	}
	return ids, nil
}

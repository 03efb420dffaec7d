package server

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// defaultWebSocketPath is the path of the WebSocket in the protocol.
const defaultWebSocketPath = "/ws/uploads"

// Handler returns the public endpoints: the WebSocket, the event streams under /events/uploads and the HTTP API under
// /v1/, behind Options.PathPrefix. It is to be mounted in any mux under these paths.
func (s *Server) Handler() http.Handler {
	if s.api == nil {
		return notMade()
	}
	// No ServeMux, which would redirect a request with an empty id instead of letting the API refuse it.
	return s.behindPrefix(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case isAPI(r):
			s.serveAPI(w, r)
		case r.URL.Path == s.opt.WebSocketPath:
			s.serveWebSocket(w, r)
		case isEvents(r):
			s.serveEvents(w, r)
		default:
			s.notFound(w, r)
		}
	})
}

// WebSocketHandler returns the WebSocket alone, to be mounted at any path.
func (s *Server) WebSocketHandler() http.Handler {
	if s.api == nil {
		return notMade()
	}
	return http.HandlerFunc(s.serveWebSocket)
}

// EventsHandler returns the event streams alone, to be mounted at Options.PathPrefix and /events/uploads.
func (s *Server) EventsHandler() http.Handler {
	if s.api == nil {
		return notMade()
	}
	return s.behindPrefix(func(w http.ResponseWriter, r *http.Request) {
		if !isEvents(r) {
			s.notFound(w, r)
			return
		}
		s.serveEvents(w, r)
	})
}

// APIHandler returns the HTTP API alone, to be mounted at Options.PathPrefix and /v1/, for example on a listener that
// clients do not reach.
func (s *Server) APIHandler() http.Handler {
	if s.api == nil {
		return notMade()
	}
	return s.behindPrefix(func(w http.ResponseWriter, r *http.Request) {
		if !isAPI(r) {
			s.notFound(w, r)
			return
		}
		s.serveAPI(w, r)
	})
}

// notMade is the handler of a zero Server.
func notMade() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, errNotMade.Error(), http.StatusInternalServerError)
	})
}

// behindPrefix returns a handler of requests whose path begins with Options.PathPrefix, without it.
func (s *Server) behindPrefix(next http.HandlerFunc) http.Handler {
	if s.opt.PathPrefix == "" {
		return next
	}
	stripped := http.StripPrefix(s.opt.PathPrefix, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, s.opt.PathPrefix+"/") {
			s.notFound(w, r)
			return
		}
		stripped.ServeHTTP(w, r)
	})
}

func isAPI(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v1/") }

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	r, body := s.boundBody(w, r, refusedBodyTimeout)
	defer body.done()
	http.NotFound(w, r)
}

func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	r, body := s.boundBody(w, r, refusedBodyTimeout)
	defer body.done()
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "a WebSocket is opened with GET", http.StatusMethodNotAllowed)
		return
	}
	s.upgrade(w, r)
}

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	timeout := refusedBodyTimeout
	refused := s.api.authorize(r)
	if refused == nil {
		timeout = bodyTimeout
		s.httpConns.trust(r)
	}
	r, body := s.boundBody(w, r, timeout)
	defer body.done()
	s.api.answer(w, r, refused)
}

// MayUseAPI returns nil if a request may use the HTTP API, by its API key or Options.AuthorizeAPI, else an error that
// the caller may see and that is an [http.Handler]: it answers the request as the API does, with 401, 403 or 503.
// MayUseAPI is for handlers beside the API that show as much.
func (s *Server) MayUseAPI(r *http.Request) error {
	if s.api == nil {
		return errNotMade
	}
	return s.api.authorize(r)
}

// boundBody bounds the time in which the body of a request must have come, if it has one. net/http reads the rest of it
// after the handler has returned, so this is needed on each path. The handler calls done of the body, which may be nil.
func (s *Server) boundBody(
	w http.ResponseWriter, r *http.Request, timeout time.Duration,
) (bound *http.Request, body *timedBody) {
	if !hasBody(r) {
		return r, nil
	}
	return s.bodies.add(w, r, timeout)
}

// newAPI returns the HTTP API of the server.
func (s *Server) newAPI() *api {
	opt := apiOptions{
		PathPrefix:      s.opt.PathPrefix,
		Keys:            func() apiKeys { return s.settings.Load().keys },
		MaxMessageBytes: s.opt.MaxMessageBytes,
		MaxBodiesBytes:  s.opt.MaxBodiesBytes,
		Logger:          s.opt.Logger,
		Stats:           func() any { return s.Stats() },
	}
	if s.opt.AuthorizeAPI != nil {
		opt.Authorize = s.authorizeAPI
	}
	return newAPI(s.manager, opt)
}

// authorizeAPI calls Options.AuthorizeAPI. Its error is a problem that the caller may see.
func (s *Server) authorizeAPI(r *http.Request) error {
	ctx, cancel := s.hookContext(r)
	defer cancel()
	defer s.requestHooks.run("AuthorizeAPI")()
	err := s.opt.AuthorizeAPI(r.WithContext(ctx))
	var refused *TokenError
	switch {
	case s.ctx.Err() != nil:
		return shuttingDown()
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return unauthorized(bearerChallenge+`, error="invalid_token"`, refused.Message)
	case errors.Is(err, ErrForbidden):
		return newProblem(http.StatusForbidden, "this caller may not use the API")
	}
	if s.awaits(r) {
		s.logs.authorizeAPI.Log(s.opt.Logger, slog.LevelWarn, "AuthorizeAPI failed", "remote", s.peer(r), "error", err)
	}
	return unavailable("authorization is not possible now; try again")
}

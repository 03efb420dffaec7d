package server

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Limits of HTTP requests, on every path: a client that is slower or larger is disconnected.
const (
	headerTimeout = 10 * time.Second
	// bodyTimeout is for a request of the API with its key, refusedBodyTimeout for the body of any other request, which
	// net/http reads and discards.
	bodyTimeout        = 30 * time.Second
	refusedBodyTimeout = 5 * time.Second
	// drainBodyTimeout is the rest of a body's time when the server begins to drain.
	drainBodyTimeout = 2 * time.Second
	writeTimeout     = 30 * time.Second
	// httpIdle is the time between two requests of a connection; the first one has headerTimeout. It is longer than those
	// of the usual proxies and clients (nginx and AWS 60 s, Go 90 s, Caddy 2 minutes): one that sends a request while the
	// server closes the connection cannot repeat it safely, and its publisher would get 502.
	httpIdle       = 150 * time.Second
	maxHeaderBytes = 32 << 10
)

// Serve serves Handler on a listener until the server is closed, and then returns http.ErrServerClosed. Any other error
// is a permanent one of the listener. Serve takes over the listener, and closes it before it returns. Any number of
// listeners may be served.
func (s *Server) Serve(ln net.Listener) error { return s.ServeHandler(ln, s.Handler()) }

// ServeHandler is Serve with a handler of the caller's own, in which Handler may be mounted. It blocks and fails as
// Serve does.
func (s *Server) ServeHandler(ln net.Listener, h http.Handler) error {
	return s.serve(ln, h, s.countHTTPConn)
}

// ServeAdmin is ServeHandler for a listener of the operator, usually with AdminHandler: its connections do not count
// against Options.MaxSockets, so that the health endpoints answer while the public listener is full. It blocks and
// fails as Serve does.
func (s *Server) ServeAdmin(ln net.Listener, h http.Handler) error { return s.serve(ln, h, nil) }

// serve serves a listener; watch, if not nil, follows the states of its connections.
func (s *Server) serve(ln net.Listener, h http.Handler, watch func(net.Conn, http.ConnState)) error {
	if s.api == nil {
		return errNotMade
	}
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       httpIdle,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(httpErrors{s}, "", 0),
		ConnState:         watch,
		ConnContext:       withConn,
	}
	if !s.listeners.add(srv) {
		_ = ln.Close()
		return http.ErrServerClosed
	}
	return srv.Serve(watchedListener{ln, s})
}

// restartAnswer has writeTimeout begin now: net/http counts it from the end of the request's header, and a slow body
// would take the time of the answer. It has no effect on a server of the embedder's, which has times of its own.
func restartAnswer(w http.ResponseWriter, r *http.Request) {
	if r.Context().Value(connKey{}) != nil {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) // a middleware may hide it
	}
}

// httpErrors receives the lines that net/http logs. Any client can cause most of them, so they are logged at debug
// level. The panic of a handler is an error.
type httpErrors struct{ server *Server }

// Write logs a line.
func (l httpErrors) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.HasPrefix(text, "http: panic serving") {
		// The value of the panic stands ahead of the stack and may hold bytes of a request.
		stack := ""
		if at := strings.LastIndex(text, "\ngoroutine "); at >= 0 {
			stack = text[at+1:]
		}
		l.server.counters.panics.Add(1)
		l.server.logs.panics.Log(l.server.opt.Logger, slog.LevelError, "panic while handling a request",
			"stack", stack)
	} else {
		l.server.opt.Logger.Debug("http server", "detail", text)
	}
	return len(line), nil
}

// watchedListener reports errors of Accept.
type watchedListener struct {
	net.Listener
	server *Server
}

// Accept returns the next connection.
func (l watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		l.server.acceptFailed(err)
	}
	return conn, err
}

// acceptFailed counts and logs an error of Accept, and makes the server unready for a while.
func (s *Server) acceptFailed(err error) {
	s.counters.acceptErrors.Add(1)
	s.acceptProblem.Store(&acceptProblem{at: s.clock(), err: err})
	s.logs.accept.Log(s.opt.Logger, slog.LevelError, "cannot accept connections", "error", err,
		"remedy", "raise the limit of open files, or lower MaxSockets and MaxConnections (--max-connections)")
}

// acceptProblem is the last error of Accept.
type acceptProblem struct {
	at  time.Duration // on Server.clock
	err error
}

// Ready returns why the server should get no new connections, as /readyz tells, or nil.
func (s *Server) Ready() error {
	if s.manager == nil {
		return errNotMade
	}
	const memory = 5 * time.Second // after an error of Accept
	problem, limits := s.acceptProblem.Load(), s.settings.Load()
	switch open := s.counters.open.Load(); {
	case s.draining.Load():
		return errors.New("draining")
	case s.leaving.Load():
		return errors.New("shutting down soon")
	case problem != nil && s.clock()-problem.at < memory:
		return fmt.Errorf("cannot accept connections: %w", problem.err)
	case limits.MaxConnections > 0 && open >= int64(limits.MaxConnections):
		return fmt.Errorf("full: %d connections are open, as many as are allowed", open)
	case limits.MaxSockets > 0 && open+int64(s.httpConns.inUse(s.clock())) >= int64(limits.MaxSockets):
		return fmt.Errorf("full: %d sockets are in use, as many as are allowed", limits.MaxSockets)
	}
	if err := s.manager.Ready(); err != nil || s.opt.Ready == nil {
		return err
	}
	defer s.requestHooks.run("Ready")()
	return s.opt.Ready()
}

// listeners are the HTTP servers that run.
type listeners struct {
	mu      sync.Mutex // protects the fields below
	servers []*http.Server
	closed  bool
}

func (l *listeners) add(srv *http.Server) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.servers = append(l.servers, srv)
	}
	return !l.closed
}

// endKeepAlive has every response end its connection, so that load balancers and publishers go elsewhere.
func (l *listeners) endKeepAlive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, srv := range l.servers {
		srv.SetKeepAlivesEnabled(false)
	}
}

// close ends all servers: gracefully while ctx lasts, then at once. The end of a TLS connection waits for a write that
// blocks, so the sockets are closed first.
func (l *listeners) close(ctx context.Context, all *httpConns) {
	stop := context.AfterFunc(ctx, all.closeAll)
	defer stop()
	l.mu.Lock()
	servers := l.servers
	l.servers, l.closed = nil, true
	l.mu.Unlock()
	for _, srv := range servers {
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close()
		}
	}
}

package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of the HTTP side. Whoever is slower or larger than these is not a client of this server.
const (
	headerTimeout  = 10 * time.Second
	bodyTimeout    = 30 * time.Second
	idleKeepAlive  = 2 * time.Minute
	maxHeaderBytes = 32 << 10
)

// Serve serves Handler on a listener until the server is closed, and then returns http.ErrServerClosed. It
// takes over the listener. Any number of listeners may be served.
func (s *Server) Serve(ln net.Listener) error { return s.ServeHandler(ln, s.handler) }

// ServeHandler is Serve with a handler of the caller's own, in which Handler may be mounted.
func (s *Server) ServeHandler(ln net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleKeepAlive,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.opt.Logger.Handler(), slog.LevelDebug),
	}
	if !s.listeners.add(srv) {
		_ = ln.Close()
		return http.ErrServerClosed
	}
	return srv.Serve(ln)
}

// listeners are the HTTP servers that run.
type listeners struct {
	mu      sync.Mutex // protects what follows
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

// close ends all servers: gracefully while ctx lasts, then at once.
func (l *listeners) close(ctx context.Context) {
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

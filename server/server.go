package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/internal/deadline"
	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/outbox"
	"github.com/shoal-go/shoal/manager"
)

// Server upgrades HTTP requests to WebSockets, speaks the protocol on them and serves the HTTP API, for a manager that
// it does not own. All methods may be called from any number of goroutines.
type Server struct {
	opt       Options
	manager   *manager.Manager
	writers   *outbox.Pool
	keepalive *keepalive
	readers   readerPool
	poller    poller
	api       *api
	counters  counters
	// requestHooks are the running hooks that belong to no connection.
	requestHooks requestHooks
	closings     closings
	logs         sampledLogs
	started      time.Time // the zero of clock
	// settings are the options that Reload replaces.
	settings atomic.Pointer[settings]
	// claimsOnly: connections get only the uploads that their own claims allow.
	claimsOnly bool
	listeners  listeners
	httpConns  httpConns
	bodies     bodies
	// acceptProblem is the last error of Accept, nil if there was none.
	acceptProblem atomic.Pointer[acceptProblem]
	// overflowBase, overflowV1 and overflowEvents are the frames that an outbox sends when it overflows.
	overflowBase               []*frame.Frame
	overflowV1, overflowEvents [overflowVariants][]*frame.Frame

	// ctx ends when the server is closed; hooks run under it.
	ctx    context.Context // the lifetime of the server itself
	cancel context.CancelFunc
	// clients waits for the end of every connection.
	clients  sync.WaitGroup
	mu       sync.Mutex         // protects perPeer, and draining against clients.Add; nothing else happens under it
	perPeer  map[netip.Addr]int // open connections by bucket
	draining atomic.Bool
	// leaving is set by Leave.
	leaving atomic.Bool
}

// errNotMade is the error of a zero Server.
var errNotMade = errors.New("server: a Server must be made with server.New")

// New returns a server, which must be closed with Close. The error names every invalid option.
func New(opt Options) (*Server, error) {
	opt = opt.withDefaults()
	if err := opt.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		opt:     opt,
		started: time.Now(),
		manager: opt.Manager,
	}
	s.claimsOnly = isAuthorizeClaims(opt.Authorize)
	s.opt.observeHooks()
	s.logs.refusedToken.Interval, s.logs.forbidden.Interval = time.Minute, time.Minute
	s.logs.authenticate.Interval, s.logs.authorize.Interval = 10*time.Second, 10*time.Second
	s.writers = outbox.NewPool(outbox.Options{
		MaxBytes:         opt.QueueBytes,
		MaxMessages:      opt.QueueMessages,
		MaxRecoveryBytes: opt.RecoveryBytes,
		UnsentBytes:      opt.UnsentBytes,
		MaxAge:           opt.QueueAge,
		CloseTimeout:     opt.CloseTimeout,
		Written:          opt.Observer.Written,
		Waited:           opt.Observer.Waited,
		Traced:           opt.Manager.Written(),
		OnPanic: func(stack []byte) {
			s.logs.panics.Log(opt.Logger, slog.LevelError, "panic while writing to a connection", "stack", string(stack))
		},
	})
	s.perPeer = make(map[netip.Addr]int)
	s.settings.Store(opt.settings().prepared())
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.readers.upgrader = newUpgrader(opt)
	s.overflowBase, s.overflowV1, s.overflowEvents = overflowFrames()
	s.keepalive = newKeepalive(s, opt.PingInterval)
	s.api = s.newAPI()
	return s, nil
}

// AdminHandler returns /healthz, which always answers 200, and /readyz, which answers 503 with the reason while the
// server should get no new connections: it drains, is full, cannot accept connections, or the broker is unhealthy.
func (s *Server) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Ready(); err != nil {
			answer(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	return mux
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

// Leave makes the server unready, so that load balancers send new clients elsewhere, while everything still works.
// Drain should follow when they have noticed.
func (s *Server) Leave() { s.leaving.Store(true) }

// Drain refuses new WebSockets and event streams from now on and closes the existing ones of this server with
// ServerReloading, evenly spread over a time. HTTP connections are no longer kept alive. It blocks until the WebSockets
// and event streams are gone, at most until ctx ends; the error says how many had to be cut off at its deadline. If ctx
// is cancelled instead, all remaining ones are closed at once, none is cut off, and they end by themselves.
func (s *Server) Drain(ctx context.Context, spread time.Duration) error {
	if s.manager == nil {
		return errNotMade
	}
	s.mu.Lock()
	s.draining.Store(true)
	s.mu.Unlock()
	s.listeners.endKeepAlive()
	s.bodies.drain()
	listed := make(map[*Client]struct{})
	err := s.manager.DrainConns(ctx, spread, s.undrained(listed))
	// Those that were being opened when the others were listed close themselves.
	return errors.Join(err, s.manager.DrainConns(ctx, 0, s.undrained(listed)))
}

// undrained returns the connections that are not listed yet, and lists them. It closes those that have not
// authenticated: they have nothing to lose and need no turn.
func (s *Server) undrained(listed map[*Client]struct{}) []manager.UserConn {
	var conns []manager.UserConn
	s.keepalive.each(func(c *Client) {
		if _, ok := listed[c]; ok {
			return
		}
		listed[c] = struct{}{}
		if !c.authenticated() {
			c.Close(manager.ServerReloading)
		}
		conns = append(conns, manager.UserConn{UserID: c.UserID(), Conn: c})
	})
	return conns
}

// Close drains without spreading, then ends the listeners of Serve and every goroutine of the server. It blocks until
// that is done, at most until ctx ends; the error then names the hooks that have not returned. Their goroutines end
// when they do. The manager stays open, and so do connections of other servers of the same manager. Close may be
// called again and concurrently: each call waits in the same way.
func (s *Server) Close(ctx context.Context) error {
	if s.manager == nil {
		return errNotMade
	}
	draining, cancel := deadline.WithMargin(ctx)
	defer cancel()
	err := s.Drain(draining, 0)
	s.cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.keepalive.close()
		s.writers.Close() // aborts the connections that are left
		s.clients.Wait()
		s.readers.close()
		s.poller.close()
	}()
	left := s.await(ctx, ended)
	s.listeners.close(ctx, &s.httpConns)
	if left == nil {
		left = s.await(ctx, s.requestHooks.ended())
	}
	return errors.Join(err, left)
}

// await blocks until done is closed, at most until ctx ends. The error then names the hooks that are running.
func (s *Server) await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-done:
		return nil
	default:
		return s.running(ctx.Err())
	}
}

// running returns an error that names the hooks that are running.
func (s *Server) running(cause error) error {
	count := s.requestHooks.counts()
	if count == nil {
		count = map[string]int{}
	}
	s.keepalive.each(func(c *Client) {
		if name := c.runningHook(); name != "" {
			count[name]++
		}
	})
	if len(count) == 0 {
		return fmt.Errorf("server: connections have not ended: %w", cause)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(count)) {
		errs = append(errs,
			fmt.Errorf("server: the hook %s has not returned for %d connections: %w", name, count[name], cause))
	}
	return errors.Join(errs...)
}

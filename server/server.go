package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

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
	// requestHooks are the hooks that run for requests.
	requestHooks requestHooks
	closings     closings
	logs         sampledLogs
	started      time.Time // the zero of clock
	// settings are the options that Reload replaces.
	settings atomic.Pointer[settings]
	// claimsOnly: connections get only the uploads that their own claims allow.
	claimsOnly bool
	listeners  listeners
	sockets    sockets
	bodies     bodies
	// acceptProblem is the last error of Accept, nil if there was none.
	acceptProblem atomic.Pointer[acceptProblem]
	// overflowBase, overflowV1 and overflowEvents are the frames that an outbox sends when it overflows.
	overflowBase               []*frame.Frame
	overflowV1, overflowEvents [overflowVariants][]*frame.Frame

	// ctx ends when the server is closed; hooks run under it.
	ctx    context.Context //nolint:containedctx // the lifetime of the server itself
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

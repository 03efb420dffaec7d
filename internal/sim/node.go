package sim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// Times of a node. Closing has to end within closeWithin even if clients are stuck.
const (
	pingInterval = 20 * time.Second
	idleTimeout  = 30 * time.Second
	closeTimeout = 2 * time.Second
	closeWithin  = 10 * time.Second
)

// cheapestCurve is the key exchange that takes the least time.
var cheapestCurve = []tls.CurveID{tls.CurveP256}

// node is one server process: a manager and a server, with its link to the broker.
type node struct {
	manager  *manager.Manager
	server   *server.Server
	listener *listener
	link     *link // nil: no broker
	// ahead is the time by which its clock is ahead of the clients'. Its managers measure ages only, and the broker gives
	// the ages of stored messages; so the clock decides on the ends of tokens alone, and these are moved instead.
	ahead  time.Duration
	served chan error
	// leaving: the node drains or has crashed, so connections end with 1012 or without a close frame.
	leaving atomic.Bool
	crashed atomic.Bool
	// publishing counts the publications that have not returned.
	publishing atomic.Int64
	// doubts are the reasons for which nothing can be authenticated or authorized now; doubted: there was one. panics
	// counts the hooks that have panicked.
	doubts  atomic.Int64
	doubted atomic.Bool
	panics  atomic.Uint64
	// connections counts the connections, observed holds the reports of the hooks about each.
	connections atomic.Int64
	observed    sync.Map
	// closing waits for the goroutine that closes the node; problem is the violation that it has found.
	closing sync.WaitGroup
	problem atomic.Pointer[string]
}

// startNode starts a node with an empty memory.
func startNode(cfg Config, h *hub, cert *tls.Certificate, seed uint64) (*node, error) {
	n := &node{listener: newListener(), served: make(chan error, 1)}
	if cfg.Skewed {
		const most = 30
		n.ahead = time.Duration(int(seed%(2*most+1))-most) * time.Second
	}
	opt := manager.Options{Shards: 2, HistoryMessages: cfg.History, HistoryTTL: cfg.TTL}
	if h != nil {
		n.link = h.link(seed)
		opt.Broker = idempotentBroker{n.link}
		if !cfg.Stored {
			opt.Broker = liveBroker{n.link}
		}
	}
	var err error
	if n.manager, err = manager.New(opt); err != nil {
		return nil, err
	}
	so := server.Options{
		Manager: n.manager, Authenticate: n.authenticate, Authorize: n.authorize,
		PingInterval: pingInterval, IdleTimeout: idleTimeout, CloseTimeout: closeTimeout,
		QueueMessages: cfg.Queue, RecoveryBytes: cfg.Recovery,
	}
	if cfg.Claims {
		so.Authorize = server.AuthorizeClaims
	}
	hooks(n, &so)
	if n.server, err = server.New(so); err != nil {
		return nil, errors.Join(err, n.manager.Close(context.Background()))
	}
	var ln net.Listener = n.listener
	if cfg.TLS {
		ln = tls.NewListener(ln, &tls.Config{
			Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13, CurvePreferences: cheapestCurve,
		})
	}
	go func() { n.served <- n.server.Serve(ln) }()
	return n, nil
}

// granted returns the content of a token as the node takes it, by its clock.
func (n *node) granted(g grant) grant {
	if !g.expires.IsZero() {
		g.expires = g.expires.Add(-n.ahead)
	}
	return g
}

// authenticate accepts the tokens that token makes.
func (n *node) authenticate(_ context.Context, text string) (server.Identity, error) {
	parts := strings.SplitN(text, "/", 4)
	ends, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || len(parts) != 4 {
		return server.Identity{}, &server.TokenError{Message: "not a token of the simulation"}
	}
	if n.doubts.Load() > 0 {
		return server.Identity{}, errDoubt
	}
	id := server.Identity{UserID: parts[0], Uploads: strings.Split(parts[2], "+"), Data: n.observedBy(text)}
	if ends > 0 {
		id.Expires = time.Unix(0, ends).Add(-n.ahead)
		if !time.Now().Before(id.Expires) {
			return server.Identity{}, &server.TokenError{Code: server.TokenExpired, Message: "Token has expired"}
		}
	}
	return id, nil
}

// errDoubt is the error of hooks that cannot decide now.
var errDoubt = errors.New("sim: not decidable now")

func (n *node) authorize(context.Context, server.Identity, string) error {
	if n.doubts.Load() > 0 {
		return errDoubt
	}
	return nil
}

// doubt begins a time in which hooks cannot decide, trust ends it.
func (n *node) doubt() {
	n.doubted.Store(true)
	n.doubts.Add(1)
}

func (n *node) trust() { n.doubts.Add(-1) }

// token returns a token of a user for one connection; the zero time never comes.
func token(user, connection string, g grant) string {
	ends := int64(0)
	if !g.expires.IsZero() {
		ends = g.expires.UnixNano()
	}
	var uploads []string
	for u := range Uploads {
		if g.allows(u) {
			uploads = append(uploads, uploadID(u))
		}
	}
	return fmt.Sprintf("%s/%d/%s/%s", user, ends, strings.Join(uploads, "+"), connection)
}

// crash cuts the node's link. The caller resets its connections and ends it.
func (n *node) crash() {
	n.leaving.Store(true)
	n.crashed.Store(true)
	if n.link != nil {
		n.link.cut()
	}
}

// end closes the node on a goroutine of its own.
func (n *node) end(spread time.Duration) {
	n.leaving.Store(true)
	n.closing.Go(func() {
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		var err error
		if spread > 0 {
			err = n.server.Drain(ctx, spread)
		}
		// The errors name connections that were cut off; the checks below are about time and leftovers.
		_ = errors.Join(err, n.server.Close(ctx), n.manager.Close(ctx))
		switch took := time.Since(start); {
		case took > closeWithin:
			n.fail(fmt.Sprintf("closing a node took %v, more than its deadline of %v", took, closeWithin))
		case n.server.Stats().Open != 0:
			n.fail(fmt.Sprintf("%d connections are open after Close", n.server.Stats().Open))
		}
		if got, want := n.server.Stats().Panics, n.panics.Load(); got != want {
			n.fail(fmt.Sprintf("a server reports %d panics, want %d", got, want))
		}
		if err := <-n.served; !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Sprintf("Serve returned %v", err))
		}
	})
}

func (n *node) fail(problem string) { n.problem.CompareAndSwap(nil, &problem) }

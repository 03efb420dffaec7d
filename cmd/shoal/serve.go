package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
	"github.com/shoal-go/shoal/cmd/shoal/internal/dashboard"
	"github.com/shoal-go/shoal/cmd/shoal/internal/webhook"
	"github.com/shoal-go/shoal/internal/demo"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// The shutdown has one deadline, --drain after it begins. Each stage ends at a part of it, so that the next has time
// left.
const (
	spreadShare  = 0.5  // closing connections one after the other, where other nodes take them
	drainShare   = 0.75 // waiting for them
	managerShare = 0.9  // leaving the other nodes and the broker
)

type serveCommand struct {
	serveFlags
}

// Run serves until ctx ends or the process gets SIGINT or SIGTERM, then drains; during the start it only closes what is
// open. A second signal is left to the system and ends the process at once: a shell shows status 130 or 143.
func (c *serveCommand) Run(std streams, again reparse, caught *signals) error {
	// A reader of the log or of the output that has gone must not end the process.
	signal.Ignore(syscall.SIGPIPE)
	level := newLevel(c.LogLevel)
	log, writer := newLog(std.err, level, c.LogFormat)
	defer writer.close()
	n, err := c.start(caught.ctx, log)
	if n == nil {
		return err
	}
	n.level, n.reparse = level, again
	n.metrics.countDroppedLines(writer)
	n.reloads = n.reloadOn(caught.hangUps)
	out := newLineWriter(std.out) // a terminal that stands still must not delay the end
	go out.run()
	defer out.close()
	return n.run(caught.ctx, caught.release, out)
}

// node is a running server with all its parts. close closes the opened parts, in the
// order that an orderly end needs.
type node struct {
	flags *serveFlags
	// name is --node-name, or a random name, by which other nodes, the webhook and traces know the node.
	name     string
	log      *slog.Logger
	public   []*listener
	admin    *listener
	jwt      *jwtauth.Verifier
	asking   *server.AuthorizeURL // nil unless --authorize is a URL
	broker   broker.Broker        // nil for one node alone
	embedded *embedded.Server     // nil unless --broker is nats-embedded
	manager  *manager.Manager
	server   *server.Server
	demo     *demo.Demo // nil unless --dev
	// secret signs the tokens of /dev/token. A reload may change it.
	secret  atomic.Pointer[string]
	metrics *metrics
	webhook *webhook.Sender // nil unless --webhook is set
	hooks   *webhook.Hooks
	// dashboard is nil if it is off. residence is its part of the server's observer.
	dashboard *dashboard.Dashboard
	residence dashboard.Residence
	tracing   *tracing // nil unless --trace-endpoint is set
	// refresh read certificates again. level is the level of the log, and reparse reads the settings again.
	refresh []func()
	level   *slog.LevelVar
	reparse reparse
	reloads *reloads
	last    serveFlags // the settings that were read last; of the goroutine that reloads
}

func (n *node) openAuthentication() (err error) {
	options := n.flags.jwtOptions()
	options.Logger = n.log
	n.jwt, err = jwtauth.New(options)
	if err != nil {
		return fmt.Errorf("cannot read the keys of --jwks: %s", keysProblem(err))
	}
	return nil
}

// jwtOptions returns the options that the flags describe.
func (f *serveFlags) jwtOptions() jwtauth.Options {
	leeway := f.JWTLeeway
	if leeway == 0 {
		leeway = -1 // none, where an option of 0 is the default
	}
	return jwtauth.Options{
		OtherSecrets: f.secrets(), JWKS: f.JWKS, Audience: f.JWTAudience, Issuer: f.JWTIssuer, Leeway: leeway,
	}
}

func (n *node) openManager() (err error) {
	f := n.flags
	n.manager, err = manager.New(manager.Options{
		HistoryMessages:         f.HistoryMessages,
		HistoryBytes:            int(f.HistoryBytes),
		HistoryTTL:              f.HistoryTTL,
		HistoryTotalBytes:       f.historyTotalBytes(),
		MaxUploads:              f.MaxUploads,
		MaxMessageBytes:         int(f.MaxMessageBytes),
		Classes:                 f.classes(),
		Statuses:                splitWords(f.Statuses),
		Stages:                  splitWords(f.Stages),
		MaxConnectionsPerUser:   noneIsNegative(f.MaxConnectionsPerUser),
		EvictSilentAfter:        f.PingInterval,
		MaxSubscriptionsPerUser: noneIsNegative(f.MaxSubscriptionsPerUser),
		Broker:                  n.countedBroker(),
		NodeName:                n.name,
		StateRate:               f.BrokerStateRate,
		Tracer:                  n.tracer(),
		Logger:                  n.log,
	})
	return err
}

// noneIsNegative turns a flag, where 0 means unbounded, into an option, where 0 is the default.
func noneIsNegative(bound int) int {
	if bound == 0 {
		return -1
	}
	return bound
}

func (n *node) openServer() error {
	authorize, err := n.authorize()
	if err != nil {
		return err
	}
	f := n.flags
	expiry := server.ExpiryEnforced
	if f.TokenExpiry == "connect" {
		expiry = server.ExpiryOnConnect
	}
	connections, sockets := n.connectionLimits()
	options := server.Options{
		Manager:         n.manager,
		Authenticate:    n.jwt.Authenticate,
		Authorize:       authorize,
		Ready:           n.jwt.Ready,
		AllowedOrigins:  f.AllowedOrigin,
		AnyLocalOrigin:  f.Dev,
		APIKeys:         f.APIKey,
		PathPrefix:      f.PathPrefix,
		MaxConnections:  connections,
		MaxSockets:      sockets,
		MaxMessageBytes: int(f.MaxMessageBytes),
		MaxBodiesBytes:  maxBodiesBytes(memoryLimit(os.ReadFile)),

		TrustedProxies:      f.TrustedProxy,
		MaxConnectionsPerIP: f.MaxConnectionsPerIP,
		ConnectRate:         f.ConnectRate,
		MaxAge:              f.MaxAge,

		MaxClientMessageBytes: int(f.MaxClientMessageBytes),

		TokenExpiry:        expiry,
		ClientMessageRate:  f.ClientMessageRate.perSecond,
		ClientMessageBurst: f.ClientMessageRate.burst,
		AuthTimeout:        f.AuthTimeout,
		PingInterval:       f.PingInterval,
		IdleTimeout:        f.IdleTimeout,
		QueueBytes:         int(f.QueueBytes),
		QueueMessages:      f.QueueMessages,
		QueueAge:           f.QueueAge,
		RecoveryBytes:      int(f.RecoveryBytes),
		UnsentBytes:        noneIsNegative(int(f.UnsentBytes)),
		Observer:           n.observer(),
		Logger:             n.log,
	}
	if err := n.openWebhook(&options); err != nil {
		return err
	}
	if n.server, err = server.New(options); err == nil {
		n.metrics.Attach(n.server)
	}
	return err
}

func (n *node) authorize() (server.Authorize, error) {
	switch n.flags.Authorize {
	case "open":
		return server.AuthorizeOpen, nil
	case "claims":
		return server.AuthorizeClaims, nil
	}
	asking, err := server.NewAuthorizeURL(n.flags.Authorize, nil)
	if err != nil {
		return nil, err
	}
	n.asking = asking
	return asking.Authorize, nil
}

func (n *node) openDemo() (err error) {
	if n.flags.Dev {
		n.secret.Store(&n.flags.JWTSecret[0])
		n.demo, err = demo.New(demo.Options{Manager: n.manager, Logger: n.log})
	}
	return err
}

// handler returns the handler of the public listener.
func (n *node) handler() http.Handler {
	handler := n.metrics.instrument(n.flags.PathPrefix, n.traced(n.server.Handler()))
	if n.demo == nil {
		return handler
	}
	return newDevHandler(n.signToken, handler, n.demo)
}

// run serves until ctx ends, a listener fails or the broker cannot be used, and then drains. After a failure it calls
// stop, so that the first signal ends the process. It returns nil after an orderly shutdown.
func (n *node) run(ctx context.Context, stop func(), out io.Writer) error {
	n.warnOfOpenFiles(n.flags.MaxConnections)
	failed := make(chan error, len(n.public)+1)
	handler := n.handler()
	for _, l := range n.public {
		go func() { failed <- n.server.ServeHandler(l.layered(n.server.TrustsProxy), handler) }()
	}
	go func() { failed <- n.server.ServeAdmin(n.admin, n.adminHandler()) }()
	connections, _ := n.connectionLimits()
	n.log.Info("serving", "addr", strings.Join(n.urls(), ", "), "admin", n.admin.url(), "node", n.name,
		"broker", n.flags.engine(), "version", buildVersion(), "max_connections", connections)
	n.logClosedAPI(n.flags.APIKey)
	if n.flags.LogFormat == "text" {
		n.printWelcome(out)
	}
	running := cap(failed)
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		running--
	case broken := <-n.manager.BrokerFailed():
		err = fmt.Errorf("the broker cannot be used: %w; see --broker", broken)
	}
	if err != nil {
		stop()
	} else {
		running, err = n.delayShutdown(failed, running)
	}
	if err != nil {
		n.log.Error("serving failed", "error", err)
	}
	n.log.Info("draining", "within", n.flags.Drain)
	n.close(n.flags.Drain)
	for range running {
		if e := <-failed; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	n.log.Info("ended")
	return err
}

// logClosedAPI logs that the HTTP API refuses every request, if there are no keys.
func (n *node) logClosedAPI(keys []string) {
	if len(keys) == 0 {
		n.log.Info("HTTP API closed", "remedy", "set --api-key or --api-key-file")
	}
}

// delayShutdown serves on for --shutdown-delay, unready, so that load balancers notice before clients are refused. It
// returns early if a listener fails.
func (n *node) delayShutdown(failed <-chan error, running int) (stillRunning int, err error) {
	if n.flags.ShutdownDelay == 0 {
		return running, nil
	}
	n.server.Leave()
	n.log.Info("shutdown delayed", "delay", n.flags.ShutdownDelay)
	delay := time.NewTimer(n.flags.ShutdownDelay)
	defer delay.Stop()
	select {
	case err := <-failed:
		return running - 1, err
	case <-delay.C:
		return running, nil
	}
}

// close closes everything that has been opened, within a time: connections first, then the manager, then the listeners,
// then the broker and the tracer. With other nodes the connections are closed one after the other, so that not all
// clients reach the others at once; a node that is alone closes all at once, because its clients have to wait for its
// return anyway. A client that does not close in time is cut off, which does not count as a failure.
func (n *node) close(within time.Duration) {
	start := time.Now()
	until := func(share float64) (context.Context, context.CancelFunc) {
		return context.WithDeadline(context.Background(), start.Add(time.Duration(float64(within)*share)))
	}
	whole, cancel := until(1)
	defer cancel()
	if n.reloads != nil {
		n.reloads.stop()
		defer func() { n.warn("reload", n.reloads.wait(whole)) }()
	}
	if n.server != nil {
		var spread time.Duration
		if n.broker != nil {
			spread = time.Duration(float64(within) * spreadShare)
		}
		ctx, cancel := until(drainShare)
		n.warn("connections", n.server.Drain(ctx, spread))
		cancel()
	}
	if n.dashboard != nil {
		n.warn("dashboard", n.dashboard.Close(whole))
	}
	if n.demo != nil {
		n.demo.Close()
	}
	if n.manager != nil {
		ctx, cancel := until(managerShare)
		n.warn("manager", waitFor(ctx, func() error { return n.manager.Close(ctx) }))
		cancel()
	}
	if n.server != nil {
		n.warn("server", n.server.Close(whole))
	}
	n.closeWebhook(whole)
	n.closeTracing(whole)
	for _, l := range append(n.public, n.admin) {
		if l != nil {
			_ = l.Close() // an error only says that the server has closed it already
		}
	}
	if n.asking != nil {
		n.asking.Close()
	}
	if n.jwt != nil {
		n.jwt.Close()
	}
	if n.embedded != nil { // last, because the manager leaves the other nodes through it
		n.warn("NATS server", waitFor(whole, n.embedded.Close))
	}
}

// waitFor calls a function and returns its error, or that of ctx when it ends first. The process is about to end, so a
// call that hangs, such as one to a frozen broker, is left behind.
func waitFor(ctx context.Context, call func() error) error {
	result := make(chan error, 1)
	go func() { result <- call() }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *node) warn(step string, err error) {
	if err != nil {
		n.log.Warn("shutdown step failed", "step", step, "error", err)
	}
}

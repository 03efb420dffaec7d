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
	"syscall"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
	"github.com/shoal-go/shoal/internal/demo"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

const (
	// flushShare is the part of the time for draining that is kept for the last connections' queues.
	flushShare = 5
	// endGrace bounds what is left to do after draining.
	endGrace = 5 * time.Second
)

type serveCommand struct {
	serveFlags
}

// Run serves until ctx ends or the process gets SIGINT or SIGTERM, then drains. A second signal, like one
// before it serves, is left to the system and ends the process at once: a shell shows status 130 or 143.
func (c *serveCommand) Run(ctx context.Context, std streams) error {
	log := newLogger(std.err, c.LogLevel, c.LogFormat)
	n, err := c.open(log)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return n.run(ctx, stop, std.out)
}

func newLogger(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		panic("the flag lets through a level that is none")
	}
	options := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// node is a running server and all that it consists of. What has been opened is closed by close, in the
// order that an orderly end needs.
type node struct {
	flags    *serveFlags
	log      *slog.Logger
	public   *listener
	admin    *listener
	jwt      *server.JWT
	asking   *server.AuthorizeURL // nil unless --authorize is a URL
	broker   broker.Broker        // nil for one node alone
	embedded *embedded.Server     // nil unless --broker is nats-embedded
	manager  *manager.Manager
	server   *server.Server
	demo     *demo.Demo // nil unless --dev
}

// open builds a node from the bottom up. After an error nothing is left open.
func (c *serveCommand) open(log *slog.Logger) (*node, error) {
	n := &node{flags: &c.serveFlags, log: log}
	for _, step := range []func() error{
		n.listen, n.openAuthentication, n.openBroker, n.openManager, n.openServer, n.openDemo,
	} {
		if err := step(); err != nil {
			ctx, cancel := context.WithTimeout(context.Background(), endGrace)
			defer cancel()
			n.close(ctx, 0)
			return nil, err
		}
	}
	return n, nil
}

func (n *node) openAuthentication() (err error) {
	options := n.flags.jwtOptions()
	options.Logger = n.log
	n.jwt, err = server.NewJWT(options)
	if err != nil {
		return fmt.Errorf("cannot read the keys of --jwks: %s", keysProblem(err))
	}
	return nil
}

// jwtOptions returns the options that the flags describe.
func (f *serveFlags) jwtOptions() server.JWTOptions {
	leeway := f.JWTLeeway
	if leeway == 0 {
		leeway = -1 // none, where an option of 0 is the default
	}
	return server.JWTOptions{
		Secret: []byte(f.JWTSecret), JWKS: f.JWKS, Audience: f.JWTAudience, Issuer: f.JWTIssuer, Leeway: leeway,
	}
}

func (n *node) openManager() (err error) {
	f := n.flags
	n.manager, err = manager.New(manager.Options{
		HistoryMessages:         f.HistoryMessages,
		HistoryTTL:              f.HistoryTTL,
		MaxMessageBytes:         int(f.MaxMessageBytes),
		MaxConnectionsPerUser:   noneIsNegative(f.MaxConnectionsPerUser),
		MaxSubscriptionsPerUser: noneIsNegative(f.MaxSubscriptionsPerUser),
		Broker:                  n.broker,
		NodeName:                f.NodeName,
		StateRate:               f.BrokerStateRate,
		Logger:                  n.log,
	})
	return err
}

// noneIsNegative turns a flag, where 0 is no bound, into an option, where 0 is the default.
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
	n.server, err = server.New(server.Options{
		Manager:            n.manager,
		Authenticate:       n.jwt.Authenticate,
		Authorize:          authorize,
		Ready:              n.jwt.Ready,
		AllowedOrigins:     f.AllowedOrigin,
		AnyLocalOrigin:     f.Dev,
		APIKeys:            f.APIKey,
		MaxConnections:     f.MaxConnections,
		MaxMessageBytes:    int(f.MaxMessageBytes),
		ClientMessageRate:  f.ClientMessageRate.perSecond,
		ClientMessageBurst: f.ClientMessageRate.burst,
		AuthTimeout:        f.AuthTimeout,
		PingInterval:       f.PingInterval,
		IdleTimeout:        f.IdleTimeout,
		QueueBytes:         int(f.QueueBytes),
		QueueMessages:      f.QueueMessages,
		QueueAge:           f.QueueAge,
		Logger:             n.log,
	})
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
		n.demo, err = demo.New(demo.Options{Manager: n.manager, Logger: n.log})
	}
	return err
}

// handler returns what the public listener serves.
func (n *node) handler() http.Handler {
	if n.demo == nil {
		return n.server.Handler()
	}
	return newDevHandler([]byte(n.flags.JWTSecret), n.server.Handler(), n.demo)
}

// run serves until ctx ends or a listener fails, and drains then. Once it drains, it has called stop: a
// further signal is not for us. It returns nil after an orderly end.
func (n *node) run(ctx context.Context, stop func(), out io.Writer) error {
	failed := make(chan error, 2)
	go func() { failed <- n.server.ServeHandler(n.public, n.handler()) }()
	go func() { failed <- n.server.ServeHandler(n.admin, n.adminHandler()) }()
	n.log.Info("serving", "addr", n.public.url(), "admin", n.admin.url(), "version", buildVersion())
	if n.flags.LogFormat == "text" {
		n.printWelcome(out)
	}
	running := cap(failed)
	var err error
	select {
	case <-ctx.Done():
		stop()
		n.log.Info("draining", "time", n.flags.Drain)
	case err = <-failed:
		running--
	case broken := <-n.manager.BrokerFailed():
		err = fmt.Errorf("the broker cannot be used: %w; see --broker", broken)
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.flags.Drain)
	defer cancel()
	n.close(end, n.flags.Drain-n.flags.Drain/flushShare)
	for range running {
		if e := <-failed; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	n.log.Info("ended")
	return err
}

// close ends what has been opened: connections first, spread over a time, then the manager, then the
// listeners, then what they rest on. ctx bounds the draining. A client that does not let go in time is cut
// off, which is no failure of ours.
func (n *node) close(ctx context.Context, spread time.Duration) {
	if n.server != nil {
		n.warn("draining", n.server.Drain(ctx, spread))
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), endGrace)
	defer cancel()
	if n.demo != nil {
		n.demo.Close()
	}
	if n.manager != nil {
		n.warn("closing the manager", n.manager.Close(grace))
	}
	if n.server != nil {
		n.warn("closing the server", n.server.Close(grace))
	}
	for _, l := range []*listener{n.public, n.admin} {
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
	if n.embedded != nil { // last, since the manager takes leave of the other nodes through it
		n.warn("closing the NATS server", n.embedded.Close())
	}
}

func (n *node) warn(step string, err error) {
	if err != nil {
		n.log.Warn("not all went well at the end", "step", step, "error", err)
	}
}

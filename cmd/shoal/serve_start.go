package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// signals are those that a server catches.
type signals struct {
	// ctx is interruptible, and ends with release.
	ctx     context.Context
	release context.CancelFunc
	hangUps chan os.Signal // receives SIGHUP
}

// catchSignals catches signals if the command line is that of serve. It is called before anything else: systemctl
// reload just after the start must not end the process, and systemctl stop must end it in order.
func catchSignals(ctx context.Context, args []string) *signals {
	s := &signals{ctx: ctx, release: func() {}, hangUps: make(chan os.Signal, 1)}
	if isServe(args) {
		signal.Notify(s.hangUps, syscall.SIGHUP)
		s.ctx, s.release = interruptible(ctx)
	}
	return s
}

// sameSignal is the time within which a second signal counts for the first one: timeout(1), for example, sends one to
// the process and one to its group, which the process belongs to.
const sameSignal = 50 * time.Millisecond

// interruptible returns a context that ends with the first SIGINT or SIGTERM. A second one, unless it comes at once, is
// left to the system, and ends the process. So are all with stop.
func interruptible(ctx context.Context) (interrupted context.Context, stop context.CancelFunc) {
	interrupted, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	return interrupted, releaseLater(interrupted, stop)
}

// releaseLater calls a function a moment after ctx has ended. The function that it returns does so at once.
func releaseLater(ctx context.Context, release context.CancelFunc) (now context.CancelFunc) {
	undo := context.AfterFunc(ctx, func() { time.AfterFunc(sameSignal, release) })
	return func() {
		undo()
		release()
	}
}

// isServe reports whether the first argument that is neither a flag nor the value of --config is serve.
func isServe(args []string) bool {
	afterConfig := false
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") && !afterConfig {
			return arg == "serve"
		}
		afterConfig = arg == "--config"
	}
	return false
}

// stop leaves all signals to the system.
func (s *signals) stop() {
	signal.Stop(s.hangUps)
	s.release()
}

// openFailed bounds closing a node that could not be opened.
const openFailed = 5 * time.Second

// start opens a node. If ctx ends first, it closes the open parts and returns nil without an error: that is an orderly
// end, too. A step that has not ended within --drain is left behind, since the process is about to end.
func (c *serveCommand) start(ctx context.Context, log *slog.Logger) (*node, error) {
	type opened struct {
		node *node
		err  error
	}
	result := make(chan opened, 1)
	go func() {
		n, err := c.open(ctx, log)
		result <- opened{n, err}
	}()
	var o opened
	select {
	case o = <-result:
	case <-ctx.Done():
		log.Info("draining", "within", c.Drain)
		late := time.NewTimer(c.Drain)
		defer late.Stop()
		select {
		case o = <-result:
		case <-late.C:
			log.Warn("shutdown step failed", "step", "start", "error", context.DeadlineExceeded)
			return nil, nil
		}
	}
	if ctx.Err() == nil || o.err != nil {
		return o.node, o.err
	}
	if o.node != nil {
		o.node.close(c.Drain)
	}
	log.Info("ended")
	return nil, nil
}

// open builds a node from the bottom up. After an error nothing is left open, nor if ctx has ended, when it is nil.
func (c *serveCommand) open(ctx context.Context, log *slog.Logger) (*node, error) {
	if err := checkOpenFiles(maxOpenFiles()); err != nil {
		return nil, err
	}
	n := &node{flags: &c.serveFlags, log: log, metrics: newMetrics(), name: c.NodeName}
	if n.name == "" {
		n.name = rand.Text()
	}
	for _, step := range []func() error{
		n.listen, n.openAuthentication, n.openTracing, n.openBroker, n.openManager, n.openServer, n.openDashboard,
		n.openDemo,
	} {
		if err := step(); err != nil || ctx.Err() != nil {
			n.close(openFailed)
			return nil, err
		}
	}
	return n, nil
}

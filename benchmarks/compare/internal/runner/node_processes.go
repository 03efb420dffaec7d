package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/control"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

type node = control.Child[nodes.Request, nodes.Answer]

// brokerServer is a server of NATS or Redis in a process of its own.
type brokerServer interface {
	url() string
	cpu(ctx context.Context) (int64, error)
	end() error
	kill()
}

// nodePair are two nodes, which are one process where their broker is memory, and the server between them, fresh for
// each trial. It is used from one goroutine.
type nodePair struct {
	config   Config
	trial    trial
	server   brokerServer // nil: there is none
	from, to *node
	// published is how many messages must have been received so far.
	published uint64
}

// beginNodes starts the processes, and returns when messages come through.
func beginNodes(ctx context.Context, c Config, t trial) (_ *nodePair, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	n := &nodePair{config: c, trial: t}
	defer func() {
		if err != nil {
			n.kill()
		}
	}()
	options, err := n.serve(ctx)
	if err != nil {
		return n, err
	}
	if n.to, err = n.start(ctx, "receiver", options[0]); err != nil {
		return n, err
	}
	n.from = n.to
	if t.params.Work != nodes.Memory {
		if n.from, err = n.start(ctx, "publisher", options[1]); err != nil {
			return n, err
		}
	}
	if _, err = n.ask(ctx, n.to, nodes.Request{Do: nodes.Follow, Uploads: t.params.Channels}); err != nil {
		return n, err
	}
	_, err = n.ask(ctx, n.from, nodes.Request{Do: nodes.Probe})
	return n, err
}

// serve starts the server, where there is one, and returns with which flags the two nodes are to be run.
func (n *nodePair) serve(ctx context.Context) (flags [2][]string, err error) {
	switch n.trial.params.Work {
	case nodes.NATS:
		n.server, err = startNATS(ctx, n.config.Program)
	case nodes.Redis:
		n.server, err = startRedis(ctx)
	case nodes.Embedded:
		var addresses [2]string
		for i := range addresses {
			if addresses[i], err = systems.FreeAddress("127.0.0.1"); err != nil {
				return flags, err
			}
		}
		for i, own := range addresses {
			flags[i] = []string{"--addr", own, "--route", strings.Join(addresses[:], ",")}
		}
	}
	if n.server != nil && err == nil {
		flags[0] = []string{"--url", n.server.url()}
		flags[1] = flags[0]
	}
	return flags, err
}

func (n *nodePair) start(ctx context.Context, name string, flags []string) (*node, error) {
	arguments := append([]string{"node", "--broker", n.trial.params.Work}, flags...)
	child, _, err := control.Start[nodes.Request, nodes.Answer](ctx, name, exec.Command(n.config.Program, arguments...)) //nolint:gosec // it is this program
	return child, err
}

// ask has a node do something, within the patience.
func (n *nodePair) ask(ctx context.Context, which *node, q nodes.Request) (nodes.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, n.config.Patience+q.For)
	defer cancel()
	return which.Call(ctx, q)
}

// profile begins to profile the nodes, if that is asked for.
func (n *nodePair) profile(ctx context.Context) error {
	if n.config.Profiles == "" {
		return nil
	}
	if err := os.MkdirAll(n.config.Profiles, 0o750); err != nil {
		return fmt.Errorf("runner: %w", err)
	}
	for name, which := range map[string]*node{"publisher": n.from, "receiver": n.to} {
		if name == "receiver" && n.from == n.to {
			continue // it is the same process
		}
		p := n.trial.params
		file, err := filepath.Abs(filepath.Join(n.config.Profiles, fmt.Sprintf("%s-%s-%d-%s-%g-%d.pprof",
			strings.ReplaceAll(n.trial.name(), " ", "-"), p.Work, p.Publishers, name, p.Load, n.trial.repeat)))
		if err != nil {
			return fmt.Errorf("runner: %w", err)
		}
		if _, err := n.ask(ctx, which, nodes.Request{Do: nodes.Profile, File: file}); err != nil {
			return err
		}
	}
	return nil
}

// nodeLook is how the processes stand.
type nodeLook struct {
	from, to nodes.Answer
	server   int64
	single   bool
}

// cpu is the processor time of all of them.
func (l nodeLook) cpu() int64 {
	if l.single {
		return l.from.CPU
	}
	return l.from.CPU + l.to.CPU + l.server
}

func (n *nodePair) look(ctx context.Context) (l nodeLook, err error) {
	l.single = n.from == n.to
	if l.from, err = n.ask(ctx, n.from, nodes.Request{Do: nodes.Look}); err != nil {
		return l, err
	}
	if l.to, err = n.ask(ctx, n.to, nodes.Request{Do: nodes.Look}); err != nil {
		return l, err
	}
	if n.server != nil {
		l.server, err = n.server.cpu(ctx)
	}
	return l, err
}

func (n *nodePair) end() error {
	var all error
	for _, which := range []*node{n.from, n.to} {
		if which != nil {
			all = errors.Join(all, which.Close())
		}
	}
	if n.server != nil {
		all = errors.Join(all, n.server.end())
	}
	return all
}

func (n *nodePair) kill() {
	for _, which := range []*node{n.from, n.to} {
		if which != nil {
			which.Kill()
		}
	}
	if n.server != nil {
		n.server.kill()
	}
}

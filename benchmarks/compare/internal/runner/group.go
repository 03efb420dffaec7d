package runner

import (
	"context"
	"errors"
	"math"
	"sync"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
)

// group are servers with their clients that work at the same time, most often one. It is used from one
// goroutine.
type group struct {
	config Config
	trial  trial
	all    []*session
}

// beginGroup starts the servers, which share the clients evenly.
func beginGroup(ctx context.Context, c Config, t trial) (*group, error) {
	g := &group{config: c, trial: t}
	servers := max(t.params.Servers, 1)
	t.params.Connections /= servers
	for range servers {
		s, err := begin(ctx, c, t)
		if err != nil {
			g.kill()
			return nil, err
		}
		g.all = append(g.all, s)
	}
	return g, nil
}

// connect connects the clients of one server after the other.
func (g *group) connect(ctx context.Context) error {
	for _, s := range g.all {
		if _, err := s.connect(ctx); err != nil {
			return err
		}
	}
	return nil
}

// publish has every server publish to its clients at once, and waits for all. The round is as long as from the
// first to begin to the last to end.
func (g *group) publish(ctx context.Context, q serverproc.Request) (round, error) {
	rounds := make([]round, len(g.all))
	failures := make([]error, len(g.all))
	var publishing sync.WaitGroup
	for i, s := range g.all {
		publishing.Go(func() { rounds[i], failures[i] = s.publish(ctx, q) })
	}
	publishing.Wait()
	return together(rounds), errors.Join(failures...)
}

// together merges rounds that ran at the same time into one.
func together(rounds []round) round {
	all := round{server: serverproc.Answer{Began: math.MaxInt64}, clients: loadgen.Answer{Complete: true}}
	for _, r := range rounds {
		all.server.Began = min(all.server.Began, r.server.Began)
		all.server.CPUBefore += r.server.CPUBefore
		all.server.WritesBefore += r.server.WritesBefore
		all.clients.Ended = max(all.clients.Ended, r.clients.Ended)
		all.clients.CPU += r.clients.CPU
		all.clients.Closed += r.clients.Closed
		all.delivered += r.delivered
		all.expected += r.expected
		if !r.clients.Complete {
			all.clients.Complete, all.clients.Missing = false, r.clients.Missing
		}
	}
	return all
}

// profile has a processor profile of the first server taken, if one is wanted.
func (g *group) profile(ctx context.Context) error { return g.all[0].profile(ctx) }

// clientsCPU is the processor time of all clients.
func (g *group) clientsCPU(ctx context.Context) (sum int64, err error) {
	for _, s := range g.all {
		a, err := s.drive(ctx, loadgen.Request{Do: loadgen.Look})
		if err != nil {
			return 0, err
		}
		sum += a.CPU
	}
	return sum, nil
}

// servers is the sum of the usage of all servers.
func (g *group) servers(ctx context.Context) (all serverproc.Answer, err error) {
	for _, s := range g.all {
		a, err := s.serve(ctx, serverproc.Request{Do: serverproc.Look})
		if err != nil {
			return all, err
		}
		all.CPU += a.CPU
		all.Writes += a.Writes
		all.RSS += a.RSS
	}
	return all, nil
}

func (g *group) end() error {
	var all error
	for _, s := range g.all {
		all = errors.Join(all, s.end())
	}
	return all
}

func (g *group) kill() {
	for _, s := range g.all {
		s.kill()
	}
}

// measureGroup measures the throughput of a group.
func measureGroup(ctx context.Context, c Config, t trial) (m map[results.Metric]float64, err error) {
	g, err := beginGroup(ctx, c, t)
	if err != nil {
		return nil, err
	}
	defer func() { err = ended(g, err) }()
	return g.throughput(ctx)
}

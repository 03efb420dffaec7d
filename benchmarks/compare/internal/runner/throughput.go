package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
)

// A run of S1, S2 or S3 has at least so many rounds, beside one that warms up.
const minRounds = 5

// throughput measures S1, S2 and S3: messages are published round after round, each round when all clients have
// got the one before. The time between the rounds does not count.
func (g *group) throughput(ctx context.Context) (map[results.Metric]float64, error) {
	if err := g.connect(ctx); err != nil {
		return nil, err
	}
	q := serverproc.Request{
		Do:       serverproc.Publish,
		Channels: g.trial.params.Channels,
		Messages: g.trial.params.Messages,
		Bytes:    g.trial.params.Bytes,
	}
	if warm, err := g.publish(ctx, q); err != nil || !warm.clients.Complete {
		return nil, errors.Join(err, warm.missingError())
	}
	if err := g.profile(ctx); err != nil {
		return nil, err
	}
	before, err := g.clientsCPU(ctx)
	if err != nil {
		return nil, err
	}
	rounds, err := g.rounds(ctx, q)
	if err != nil {
		return nil, err
	}
	after, err := g.servers(ctx)
	if err != nil {
		return nil, err
	}
	return g.throughputOf(rounds, before, after)
}

// rounds publishes until it has been measured for long enough, or something is lost.
func (g *group) rounds(ctx context.Context, q serverproc.Request) ([]round, error) {
	var rounds []round
	var measuredFor time.Duration
	for len(rounds) < minRounds || measuredFor < g.config.Measure {
		r, err := g.publish(ctx, q)
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, r)
		measuredFor += r.took()
		if !r.clients.Complete {
			break
		}
	}
	return rounds, nil
}

// throughputOf adds up the rounds.
func (g *group) throughputOf(rounds []round, clientsBefore int64, after serverproc.Answer) (
	map[results.Metric]float64, error,
) {
	var took time.Duration
	var delivered, expected uint64
	var each []time.Duration
	for _, r := range rounds {
		took += r.took()
		delivered += r.delivered
		expected += r.expected
		each = append(each, r.took())
	}
	slices.Sort(each)
	last := rounds[len(rounds)-1]
	serverCPU := after.CPU - rounds[0].server.CPUBefore
	m := measured(serverCPU, last.clients.CPU-clientsBefore, took)
	m[results.Rounds] = float64(len(rounds))
	m[results.Delivered], m[results.Expected] = float64(delivered), float64(expected)
	m[results.Closed] = float64(last.clients.Closed)
	m[results.Resident] = float64(after.RSS) / float64(g.trial.params.Connections)
	if delivered > 0 {
		m[results.Throughput] = float64(delivered) / took.Seconds()
		m[results.ServerCPU] = float64(serverCPU) / float64(delivered)
		m[results.PerWrite] = float64(delivered) / float64(max(after.Writes-rounds[0].server.WritesBefore, 1))
	}
	if g.trial.scenario == Single {
		m[results.ToLast] = milliseconds(int64(each[len(each)/2]))
	}
	return m, last.missingError()
}

// missingError describes the missing messages of a round, if there are any.
func (r round) missingError() error {
	if r.clients.Complete {
		return nil
	}
	return fmt.Errorf("runner: %d of %d messages were delivered, %d connections had ended: %s",
		r.delivered, r.expected, r.clients.Closed, r.clients.Missing)
}

func milliseconds(nanoseconds int64) float64 { return float64(nanoseconds) / 1e6 }

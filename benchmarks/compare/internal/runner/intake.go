package runner

import (
	"context"
	"errors"
	"os/exec"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// intakeVariants lists the ways of publishing of S12, without subscribers and with one for each upload. Foreign
// publishers need one: a node takes messages from a broker for uploads that somebody follows. Without redis-server the way
// through Redis is left out.
func (c Config) intakeVariants() []results.Params {
	var all []results.Params
	for _, p := range []results.Params{
		{Work: results.SinglePost, Messages: 1, Channels: c.Publishers},
		{Work: results.BatchPost, Messages: c.Batch, Channels: c.Publishers},
		{Work: results.ManyPost, Messages: c.Batch, Channels: c.Uploads},
		{Work: results.RedisPublish, Messages: 1, Channels: c.Publishers},
		{Work: results.NATSPublish, Messages: 1, Channels: c.Publishers},
	} {
		if _, err := exec.LookPath("redis-server"); err != nil && p.Work == results.RedisPublish {
			continue
		}
		p.Publishers, p.Bytes = c.Publishers, c.Bytes
		if p.Work != results.RedisPublish && p.Work != results.NATSPublish {
			all = append(all, p)
		}
		p.Connections = p.Channels
		all = append(all, p)
	}
	return all
}

// takesIn reports whether a system takes part in a variant of S12.
func takesIn(e systems.Entry, p results.Params) bool {
	switch {
	case p.Work == results.RedisPublish || p.Work == results.NATSPublish:
		return e.Kind == systems.Own
	case e.Part == systems.IntakeOnly && e.Command == "":
		return p.Connections == 0 // there is nothing to subscribe to
	}
	return true
}

// measureIntake measures S12.
func measureIntake(ctx context.Context, c Config, t trial) (m map[results.Metric]float64, err error) {
	start, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	var server brokerServer
	switch t.params.Work {
	case results.RedisPublish:
		server, err = startRedis(start)
	case results.NATSPublish:
		server, err = startNATS(start, c.Program)
	}
	if err != nil {
		return nil, err
	}
	var flags []string
	if server != nil {
		defer func() { err = errors.Join(err, server.end()) }()
		flags = []string{"--broker", server.url()}
	}
	s, err := begin(ctx, c, t, flags...)
	if err != nil {
		return nil, err
	}
	defer func() { err = ended(s, err) }()
	return s.intake(ctx, server)
}

// intake publishes for a while to warm up, and then measures.
func (s *session) intake(ctx context.Context, foreign brokerServer) (map[results.Metric]float64, error) {
	if err := s.startClients(ctx); err != nil {
		return nil, err
	}
	p := s.trial.params
	if p.Connections > 0 {
		if _, err := s.open(ctx); err != nil {
			return nil, err
		}
	}
	q := loadgen.Request{
		Do: loadgen.Intake, System: s.trial.entry.Name, Addr: s.addr, Publishers: p.Publishers, Channels: p.Channels,
		Messages: p.Messages, Bytes: p.Bytes, Spread: p.Work == results.ManyPost, For: s.config.Measure / 4,
	}
	if foreign != nil {
		q.Addr = foreign.url()
	}
	warm, err := s.drive(ctx, q)
	if err != nil {
		return nil, err
	}
	if err := s.profile(ctx); err != nil {
		return nil, err
	}
	before, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	q.For = s.config.Measure
	a, err := s.drive(ctx, q)
	if err != nil {
		return nil, err
	}
	after, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	took := time.Duration(a.Ended - a.Began)
	m := measured(after.CPU-before.CPU, a.CPU-warm.CPU, took)
	m[results.Throughput] = float64(a.Published) / took.Seconds()
	m[results.ServerCPU] = float64(after.CPU-before.CPU) / float64(a.Published)
	m[results.P50], m[results.P99] = milliseconds(a.Latency.P50), milliseconds(a.Latency.P99)
	if p.Connections > 0 {
		m[results.Received] = float64(a.Messages-warm.Messages) / float64(a.Published)
	}
	return m, nil
}

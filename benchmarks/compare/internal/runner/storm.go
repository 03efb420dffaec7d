package runner

import (
	"context"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
)

// storm measures S6: all clients reconnect at once and resume their subscriptions, one each.
func (s *session) storm(ctx context.Context) (map[results.Metric]float64, error) {
	if err := s.profile(ctx); err != nil {
		return nil, err
	}
	before, err := s.serve(ctx, serverproc.Request{Do: serverproc.Look})
	if err != nil {
		return nil, err
	}
	opened, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	clients, err := s.drive(ctx, loadgen.Request{Do: loadgen.Look})
	if err != nil {
		return nil, err
	}
	after, err := s.serve(ctx, serverproc.Request{Do: serverproc.Look})
	if err != nil {
		return nil, err
	}
	took := time.Duration(opened.Ended - opened.Began)
	connections := float64(s.trial.params.Connections)
	m := measured(after.CPU-before.CPU, opened.CPU-s.clientsCPU, took)
	m[results.ConnectRate] = connections / took.Seconds()
	m[results.ReadyP50] = milliseconds(clients.Ready.P50)
	m[results.ReadyP99] = milliseconds(clients.Ready.P99)
	m[results.ConnectCPU] = float64(after.CPU-before.CPU) / connections / 1e3
	return m, nil
}

package runner

import (
	"context"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// directSystems lists the systems of S11.
func directSystems() []string {
	return []string{systems.OwnName, "gws-direct", "gws", "gorilla", "coder"}
}

// direct measures S11: server, publisher and clients are one process.
func (s *session) direct(ctx context.Context) (map[results.Metric]float64, error) {
	if err := s.profile(ctx); err != nil {
		return nil, err
	}
	p := s.trial.params
	messages := max(int(p.Rate*s.config.Measure.Seconds()), leastMessages)
	ctx, cancel := context.WithTimeout(ctx, s.config.Measure+s.config.Patience)
	defer cancel()
	a, err := s.server.Call(ctx, serverproc.Request{
		Do: serverproc.Direct, Channels: p.Channels, Clients: p.Connections, Messages: messages, Bytes: p.Bytes, Rate: p.Rate,
	})
	if err != nil {
		return nil, err
	}
	return map[results.Metric]float64{
		results.P50: milliseconds(a.Planned.P50), results.P99: milliseconds(a.Planned.P99), results.P999: milliseconds(a.Planned.P999),
		results.CallP50: milliseconds(a.Called.P50), results.CallP99: milliseconds(a.Called.P99),
		results.CallP999: milliseconds(a.Called.P999),
		results.Late:     milliseconds(a.Late), results.Delivered: float64(a.Received), results.Expected: float64(a.Received),
	}, nil
}

package runner

import (
	"context"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/usage"
)

// memory measures S5: the memory in use, after a collection, with idle connections
// and before them.
func (s *session) memory(ctx context.Context) (map[results.Metric]float64, error) {
	kernel := usage.Slab()
	empty, err := s.serve(ctx, serverproc.Request{Do: serverproc.Look, Clean: true})
	if err != nil {
		return nil, err
	}
	if _, err := s.connect(ctx); err != nil {
		return nil, err
	}
	if err := pause(ctx, s.config.Settle); err != nil {
		return nil, err
	}
	full, err := s.serve(ctx, serverproc.Request{Do: serverproc.Look, Clean: true})
	if err != nil {
		return nil, err
	}
	kernel = usage.Slab() - kernel
	connections := float64(s.trial.params.Connections)
	return map[results.Metric]float64{
		results.PerConnection: float64(full.RSS-empty.RSS) / connections,
		results.Resident:      float64(full.RSS) / connections,
		// The clients' ends are on this machine, too.
		results.Kernel: max(float64(kernel)/connections/2, 0),
	}, nil
}

package runner

import (
	"context"
	"errors"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
)

// Before latency is measured, the buffers of the clients that do not read are filled, with few large
// messages: the kernel keeps some 64 KiB for a client on top of the server's send buffer.
const (
	fillMessages = 20
	fillBytes    = 16 << 10
)

// leastMessages is how many messages a run of S4 has at least.
const leastMessages = 20

// latency measures S4: messages at a fixed rate, from the time for which each was planned until it came, at
// all clients that read.
func (s *session) latency(ctx context.Context) (map[results.Metric]float64, error) {
	if _, err := s.connect(ctx); err != nil {
		return nil, err
	}
	if err := s.fill(ctx); err != nil {
		return nil, err
	}
	if _, err := s.drive(ctx, loadgen.Request{Do: loadgen.Reset}); err != nil {
		return nil, err
	}
	if err := s.profile(ctx); err != nil {
		return nil, err
	}
	before, err := s.drive(ctx, loadgen.Request{Do: loadgen.Look})
	if err != nil {
		return nil, err
	}
	p := s.trial.params
	r, err := s.publish(ctx, serverproc.Request{
		Do:       serverproc.Schedule,
		Channels: p.Channels,
		Messages: max(int(p.Rate*s.config.Duration.Seconds()), leastMessages),
		Bytes:    p.Bytes,
		Rate:     p.Rate,
	})
	if err != nil {
		return nil, err
	}
	after, err := s.serve(ctx, serverproc.Request{Do: serverproc.Look})
	if err != nil {
		return nil, err
	}
	end, err := s.drive(ctx, loadgen.Request{Do: loadgen.Look})
	if err != nil {
		return nil, err
	}
	serverCPU := after.CPU - r.server.CPUBefore
	m := measured(serverCPU, r.clients.CPU-before.CPU, r.took())
	m[results.P50] = milliseconds(end.Latency.P50)
	m[results.P99] = milliseconds(end.Latency.P99)
	m[results.P999] = milliseconds(end.Latency.P999)
	m[results.Late] = milliseconds(r.server.Late)
	m[results.Delivered], m[results.Expected] = float64(r.delivered), float64(r.expected)
	m[results.Closed] = float64(s.trial.params.Connections - after.Subscriptions)
	if r.delivered > 0 {
		m[results.ServerCPU] = float64(serverCPU) / float64(r.delivered)
	}
	return m, r.missingError()
}

// fill publishes until clients that do not read can take no more, each message when the ones that read have
// got the one before.
func (s *session) fill(ctx context.Context) error {
	for range fillMessages {
		r, err := s.publish(ctx, serverproc.Request{Do: serverproc.Publish, Channels: 1, Messages: 1, Bytes: fillBytes})
		if err != nil || !r.clients.Complete {
			return errors.Join(err, r.missingError())
		}
	}
	return nil
}

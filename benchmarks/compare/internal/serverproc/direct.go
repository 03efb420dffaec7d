package serverproc

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/internal/load"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

const (
	// directWarm is the number of messages before those that are measured.
	directWarm = 200
	// directPatience is the longest time for clients to subscribe, and to receive the last messages.
	directPatience = 10 * time.Second
)

// Direct measures the shortest way: clients of this process, each with a goroutine that reads, and one goroutine that
// publishes at a fixed rate to the only channel. Times count from the planned time, and from the call that published.
func (s *Server) Direct(q results.Params, figures *results.Figures) error {
	calls := make([]atomic.Int64, directWarm+q.Messages) // when each message was published, by its number
	called := load.NewTimes()
	ctx, cancel := context.WithTimeout(context.Background(), directPatience)
	defer cancel()
	clients, err := load.Open(ctx, load.Options{
		Addr: s.addr, Connections: q.Connections, Goroutines: true, Dialect: s.entry.Dialect(systems.Audience{Channels: 1}),
		Sent: func(payload []byte) (int64, bool) {
			sent, number, ok := message.Read(payload)
			if !ok || number < directWarm || number >= uint64(len(calls)) {
				return 0, false
			}
			called.Add(time.Now().UnixNano() - calls[number].Load())
			return sent, true
		},
	})
	if err != nil {
		return fmt.Errorf("serverproc: %w", err)
	}
	defer clients.Close()
	if err := worker.Poll(ctx, func() bool { return s.system.Subscriptions() == q.Connections }); err != nil {
		return fmt.Errorf("%d of %d clients subscribed: %w", s.system.Subscriptions(), q.Connections, err)
	}
	late, err := s.publishDirect(q, calls)
	if err != nil {
		return err
	}
	all := len(calls) * q.Connections
	ctx, cancel = context.WithTimeout(context.Background(), directPatience)
	defer cancel()
	if _, err := clients.WaitMessages(ctx, uint64(all)); err != nil { //nolint:gosec // not negative
		return err
	}
	*figures = results.Figures{
		results.Late: float64(late) / 1e6, results.Delivered: float64(all), results.Expected: float64(all),
	}
	figures.AddTimes(load.PercentilesOf(clients.Latency()), results.P50, results.P99, results.P999)
	figures.AddTimes(called.Percentiles(), results.CallP50, results.CallP99, results.CallP999)
	return nil
}

// publishDirect publishes each message at its planned time and returns the largest delay of a call.
func (s *Server) publishDirect(q results.Params, calls []atomic.Int64) (late int64, err error) {
	_, err = worker.Pace(q.Rate, len(calls), func(i int, planned time.Time) error {
		number := uint64(i) //nolint:gosec // not negative
		m := message.Message{Channel: message.Channel(0), Sent: planned.UnixNano(), Number: number, Size: q.Bytes}
		now := time.Now()
		calls[i].Store(now.UnixNano())
		if i >= directWarm {
			late = max(late, int64(now.Sub(planned)))
		}
		return s.system.Publish([]message.Message{m})
	})
	return late, err
}

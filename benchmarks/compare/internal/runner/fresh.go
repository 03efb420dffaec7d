package runner

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/link"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
)

// freshVariants lists the links of S10.
func (c Config) freshVariants() []results.Params {
	var all []results.Params
	p := results.Params{Connections: 1, Channels: 1, Bytes: c.StateBytes, Rate: c.States}
	for _, p.Kbits = range c.Kbits {
		for _, delay := range c.Delays {
			for _, p.Loss = range c.Losses {
				p.DelayMS = int(delay.Milliseconds())
				all = append(all, p)
			}
		}
	}
	return all
}

// measureFresh measures S10: one client behind a slow link follows an upload with many states a second.
func measureFresh(ctx context.Context, c Config, t trial) (m map[results.Metric]float64, err error) {
	p := t.params
	l, err := link.New(ctx, link.Options{
		Rate: float64(p.Kbits) * 1000, Delay: time.Duration(p.DelayMS) * time.Millisecond, Loss: p.Loss,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	s, err := beginOn(ctx, c, t, l)
	if err != nil {
		return nil, err
	}
	defer func() { err = ended(s, err) }()
	return s.fresh(ctx)
}

// fresh publishes for some time and measures in the last part of it: buffers on the way fill up first. A message that
// has not been received when that is over does not count: a system whose queue grows without bound would otherwise be
// waited for as long again.
func (s *session) fresh(ctx context.Context) (map[results.Metric]float64, error) {
	if _, err := s.connect(ctx); err != nil {
		return nil, err
	}
	p := s.trial.params
	messages := max(p.Rate*s.config.Duration.Seconds(), leastMessages)
	lasts := time.Duration(messages / p.Rate * float64(time.Second))
	type received struct {
		before, end loadgen.Answer
		err         error
	}
	done := make(chan received, 1)
	began := time.Now()
	go func() {
		before, end, err := s.receive(ctx, s.config.WarmUp, lasts)
		done <- received{before, end, err}
	}()
	published, err := s.server.Call(ctx, serverproc.Request{
		Do: serverproc.Schedule, Channels: 1, Bytes: p.Bytes, Rate: p.Rate,
		Messages: int(messages + p.Rate*s.config.WarmUp.Seconds()),
	})
	if err != nil {
		s.clients.Interrupt()
	}
	r := <-done
	if err := errors.Join(err, r.err); err != nil {
		return nil, err
	}
	m := map[results.Metric]float64{
		results.P50: milliseconds(r.end.Latency.P50), results.P99: milliseconds(r.end.Latency.P99),
		results.Late:          milliseconds(published.Late),
		results.Messages:      float64(r.end.Messages - r.before.Messages),
		results.Received:      float64(r.end.Messages-r.before.Messages) / messages,
		results.ReceivedBytes: float64(r.end.Bytes - r.before.Bytes),
		results.Closed:        float64(r.end.Closed),
	}
	if r.end.Closed > 0 {
		m[results.Lasted] = milliseconds(r.end.Ended - began.UnixNano())
		m[results.CloseCode] = closeCode(r.end.Missing)
	}
	return m, nil
}

// receive has the client read until the warm-up is over, and then for the measurement. It returns the counters at both
// ends of the measurement, or of all that was received if the connection ended in the warm-up.
func (s *session) receive(ctx context.Context, warmUp, lasts time.Duration) (before, end loadgen.Answer, err error) {
	wait := loadgen.Request{Do: loadgen.Wait, Total: math.MaxUint64, Timeout: warmUp}
	if end, err = s.drive(ctx, wait); err == nil && end.Closed == 0 {
		if before, err = s.drive(ctx, loadgen.Request{Do: loadgen.Reset}); err != nil {
			return before, end, err
		}
		wait.Timeout = lasts
		end, err = s.drive(ctx, wait)
	}
	if err != nil {
		return before, end, err
	}
	last, err := s.drive(ctx, loadgen.Request{Do: loadgen.Look})
	end.Latency = last.Latency
	return before, end, err
}

// closeCode returns the code in an explanation of why a connection has ended, 0 if there is none.
func closeCode(explanation string) float64 {
	_, code, _ := strings.Cut(explanation, "closed the connection with ")
	n := 0
	_, _ = fmt.Sscanf(code, "%d", &n) // 0 where there is no number
	return float64(n)
}

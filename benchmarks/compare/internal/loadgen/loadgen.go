// Package loadgen runs the clients in a process of their own, and reports the received messages to the runner.
package loadgen

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/internal/load"
)

// Audience describes the clients. With Latency, the times of messages are measured, with Goroutines also from when they were
// published: each client then has a goroutine in the process of the server.
type Audience struct {
	System, Addr                   string
	Connections, Channels, Stalled int
	Storm, Latency, Goroutines     bool
	TLS                            bool
}

// Opened tells when the clients began to connect and when the last one was ready, in nanoseconds of Unix time, and the times
// from dialling until subscribed. CPU is the processor time that the process has used until then.
type Opened struct {
	Began, Ended, CPU int64
	Ready             load.Percentiles
}

// Wait waits for a total of messages since the clients connected. Messages received in the WarmUp before it do not count,
// unless connections have ended by then.
type Wait struct {
	Total           uint64
	WarmUp, Timeout time.Duration
}

// Received is the state of the clients. Ended is when the last message arrived, in nanoseconds of Unix time; Missing
// explains why not all have arrived that were waited for, "" if they have.
type Received struct {
	Messages, Bytes uint64
	Closed          int // connections
	CPU, Ended      int64
	Missing         string
	Latency         load.Percentiles // from the planned time
	Called          load.Percentiles // from the call that published, at a rate
}

// Clients is the service of a process with clients.
type Clients struct {
	fleet  *load.Fleet // nil before Open
	called *load.Times // from the call that published
}

// Close ends all connections.
func (c *Clients) Close() error {
	if c.fleet != nil {
		c.fleet.Close()
	}
	return nil
}

// Open connects the clients and blocks until all are ready.
func (c *Clients) Open(q Audience, a *Opened) error {
	entry, err := systems.Find(q.System)
	if err != nil {
		return err
	}
	o := load.Options{
		Addr: q.Addr, Connections: q.Connections, Stalled: q.Stalled,
		Dialect: entry.Dialect(systems.Audience{Channels: q.Channels, Storm: q.Storm}),
		// With one, half of the machine would idle at the end of each round, when all is written and not yet read.
		Pollers: runtime.NumCPU(),
	}
	if q.Storm {
		// As many as a listener's queue holds with room to spare. Beyond that the kernel drops connections, and their second try
		// a second later is all that would be measured.
		o.DialParallel = 1024
	}
	c.called = load.NewTimes()
	switch {
	case q.Goroutines: // also from when messages were published
		o.Goroutines, o.Sent = true, c.sent
	case q.Latency:
		o.Sent = message.SentAt
	}
	if q.TLS {
		o.TLS = systems.ClientTLS()
		first := o
		first.Connections, first.Stalled = 1, 0
		one, err := load.Open(context.Background(), first) // gets a ticket, so that all others resume its session
		if err != nil {
			return err
		}
		one.Close()
	}
	a.Began = time.Now().UnixNano()
	if c.fleet, err = load.Open(context.Background(), o); err != nil {
		return err
	}
	a.Ended, a.CPU, a.Ready = time.Now().UnixNano(), worker.CPU(), load.PercentilesOf(c.fleet.ReadyTimes())
	return nil
}

// sent notes the time since a message was published, and returns when it was planned to be.
func (c *Clients) sent(payload []byte) (planned int64, ok bool) {
	planned, late, ok := message.Read(payload)
	if ok {
		c.called.Add(time.Now().UnixNano() - planned - int64(late)) //nolint:gosec // as it was written
	}
	return planned, ok
}

// Wait blocks until messages have arrived, at most for a time, and returns the state of the clients.
func (c *Clients) Wait(q Wait, r *Received) error {
	if c.fleet == nil {
		return errors.New("loadgen: no clients are open")
	}
	var before load.Counts
	if q.WarmUp > 0 {
		_, _ = c.wait(q.Total, q.WarmUp) // the wait after it fails for the same reason
		if counts := c.fleet.Counts(); counts.Closed == 0 {
			before = counts
			c.fleet.ResetLatency()
		}
	}
	last, err := c.wait(q.Total, q.Timeout)
	if r.Ended = last.UnixNano(); err != nil {
		r.Missing = err.Error()
	}
	counts := c.fleet.Counts()
	r.Messages, r.Bytes = counts.Messages-before.Messages, counts.Bytes-before.Bytes
	r.Closed, r.CPU = counts.Closed, worker.CPU()
	r.Latency, r.Called = load.PercentilesOf(c.fleet.Latency()), c.called.Percentiles()
	return nil
}

// wait blocks until total messages have arrived, at most for a time.
func (c *Clients) wait(total uint64, timeout time.Duration) (last time.Time, err error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, fmt.Errorf("waited for %v", timeout))
	defer cancel()
	return c.fleet.WaitMessages(ctx, total)
}

// Reset removes the measured times of messages.
func (c *Clients) Reset(worker.None, *worker.None) error {
	c.fleet.ResetLatency()
	c.called.Reset()
	return nil
}

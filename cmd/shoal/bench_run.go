package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/internal/load"
)

const (
	// benchQuiet is the time without messages after which missing ones count as lost.
	benchQuiet = 5 * time.Second
	// benchSettle bounds the wait for published messages.
	benchSettle = time.Minute
)

// bench is one run.
type bench struct {
	flags *benchCommand
	live  *live
	id    string // stands in the ids of the run, so that runs at the same time leave each other alone
}

func newBench(c *benchCommand, l *live) *bench {
	return &bench{flags: c, live: l, id: strings.ToLower(rand.Text()[:8])}
}

// run connects the clients, publishes, waits for the messages and returns the result. There
// is a result with an error where something has been measured nevertheless, and none where nothing has.
func (b *bench) run(ctx context.Context) (*benchResult, error) {
	before, err := b.serverCounts(ctx)
	if err != nil {
		return nil, err
	}
	r := newBenchResult(b.flags)
	r.Server.Before = before
	fleet, err := b.open(ctx)
	var unopened *load.OpenError
	switch {
	case err != nil && ctx.Err() != nil && errors.As(err, &unopened):
		r.Interrupted, r.Connections.Ready = true, unopened.Ready
		return r, errors.New("interrupted before all clients were ready")
	case err != nil:
		return nil, fmt.Errorf("cannot connect the clients: %s", strings.TrimPrefix(err.Error(), "load: "))
	}
	defer fleet.Close()
	err = b.measure(ctx, fleet, r)
	r.Interrupted = ctx.Err() != nil
	after, statsErr := b.serverCounts(context.WithoutCancel(ctx))
	r.Server.After = after
	return r, errors.Join(err, r.loss(fleet.Ended()), statsErr)
}

func (b *bench) open(ctx context.Context) (*load.Fleet, error) {
	var ready atomic.Int64
	o, err := b.fleetOptions(func() { ready.Add(1) })
	if err != nil {
		return nil, err
	}
	defer b.live.show(quantity{"connected", int64(b.flags.Connections), ready.Load})()
	return load.Open(ctx, o)
}

// measure publishes and waits for the clients to receive it.
func (b *bench) measure(ctx context.Context, fleet *load.Fleet, r *benchResult) error {
	userBefore, systemBefore := load.ProcessCPU()
	p := &plan{
		start: time.Now(), rate: b.flags.Rate, messages: b.flags.messages(),
		burst: b.flags.Burst, uploads: b.flags.Uploads,
	}
	published := newPublishing(b, p)
	done := b.live.show(
		quantity{"published", int64(p.messages), published.total.Load},
		quantity{"delivered", b.expected(p), func() int64 { return received(fleet) }},
	)
	err := published.run(ctx)
	expected := published.expected()
	last := settle(context.WithoutCancel(ctx), fleet, expected)
	done()
	user, system := load.ProcessCPU()
	r.Messages = newMessageResult(p, published.total.Load(), expected, fleet, last)
	r.Messages.refused = err != nil
	r.Connections = newConnectionResult(b.flags, fleet)
	r.Generator = newGeneratorResult(b.flags, user+system-userBefore-systemBefore, time.Since(p.start))
	return err
}

// settle waits for a number of messages, or until none arrive any more, and returns when the last arrived.
func settle(ctx context.Context, fleet *load.Fleet, expected int64) time.Time {
	ctx, cancel := context.WithTimeout(ctx, benchSettle)
	defer cancel()
	for {
		seen := received(fleet)
		quiet, cancel := context.WithTimeout(ctx, benchQuiet)
		last, err := fleet.WaitMessages(quiet, uint64(expected)) //nolint:gosec // a number of messages
		cancel()
		if err == nil || ctx.Err() != nil || received(fleet) == seen {
			return last
		}
	}
}

// received is how many messages the clients have received.
func received(f *load.Fleet) int64 {
	return int64(f.Counts().Messages) //nolint:gosec // less than 2^63
}

// readers is how many clients that read follow an upload.
func (b *bench) readers(upload int) int64 {
	follow := func(clients int) int { return (clients - upload + b.flags.Uploads - 1) / b.flags.Uploads }
	return int64(follow(b.flags.Connections) - follow(b.flags.stalled()))
}

// expected is how many messages the clients are to receive if the plan is done.
func (b *bench) expected(p *plan) int64 {
	rounds, rest := p.messages/(p.burst*p.uploads), p.messages%(p.burst*p.uploads)
	var sum int64
	for upload := range p.uploads {
		messages := rounds*p.burst + min(max(rest-upload*p.burst, 0), p.burst)
		sum += int64(messages) * b.readers(upload)
	}
	return sum
}

// expected returns how many messages the clients should receive.
func (p *publishing) expected() int64 {
	var sum int64
	for upload := range p.accepted {
		sum += p.accepted[upload].Load() * p.bench.readers(upload)
	}
	return sum
}

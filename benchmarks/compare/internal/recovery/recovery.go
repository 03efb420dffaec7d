// Package recovery measures the return of a node to its broker: a node that follows many uploads loses the broker for some
// seconds, during which a share of the uploads changes. One process holds both nodes; the link of the following one to the
// broker is a TCP connection that can be cut.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/load"
	"github.com/shoal-go/shoal/manager"
)

// Simulated is a broker in memory, with the costs of a Model.
const Simulated = "simulated"

// Options describe a trial.
type Options struct {
	Uploads  int           `default:"20000" within:"1 to 1000000" help:"Uploads that the node follows."`
	Changed  float64       `default:"0.01" within:"0 to 1" help:"Share of them that change while the node is cut off."`
	Cut      time.Duration `default:"2s" within:"1ms to 1h" help:"How long the node is cut off."`
	Stored   int           `default:"5" within:"0 to 64" help:"Messages that each upload has before."`
	Bytes    int           `default:"256" within:"256 to 32768" help:"Size of a message."`
	Rate     float64       `default:"500" within:"1 to 1000000" help:"Live messages per second, half of them to uploads that change."`
	Patience time.Duration `default:"2m" within:"1s to 24h" help:"How long a single step may take."`
	Model
	// Broker is the name of the broker, and URL where its server is.
	Broker string `kong:"-"`
	URL    string `kong:"-"`
}

// Result holds the measurements of a trial.
type Result struct {
	Followed time.Duration // until all uploads were followed
	// Healthy is the time from the mending of the link until the node received messages again, Current until it had
	// delivered every message that was published before the link was mended, and Ready until Manager.Ready agreed.
	Healthy, Current, Ready time.Duration
	Changed                 int
	// Before are live messages while nothing is wrong; Live those to uploads that had not changed, and Behind those to
	// uploads that had, published after the node was healthy.
	Before, Live, Behind load.Percentiles
	// Calls were made by the node from the mending until all was current.
	Calls    Calls
	Disorder int64
}

const (
	// mostLive is how many uploads get live messages at most.
	mostLive = 200
	// settle is how long live messages are measured before and after the return.
	settle = 3 * time.Second
)

// Run makes one trial.
func Run(ctx context.Context, o Options) (r Result, err error) {
	t, err := open(ctx, o)
	defer func() { err = errors.Join(err, t.closers.Close()) }()
	if err != nil {
		return r, err
	}
	if err := t.fill(ctx, &r); err != nil {
		return r, err
	}
	stop := t.goLive(ctx, t.publishing, t.liveUploads())
	err = t.interrupt(ctx, &r)
	return r, errors.Join(err, stop())
}

// trial are two nodes: the publishing one keeps its broker, the following one is cut off.
type trial struct {
	*traffic
	publishing, following *manager.Manager
	watched               *watched
	cut                   func(ctx context.Context, cut bool) error
	closers               worker.Closers
}

// open starts the nodes. The trial is to be closed even if there is an error.
func open(ctx context.Context, o Options) (t *trial, err error) {
	t = &trial{traffic: newTraffic(o)}
	from, err := t.brokers(ctx)
	if err != nil {
		return t, err
	}
	if t.publishing, err = t.manager(from); err != nil {
		return t, err
	}
	if t.following, err = t.manager(t.watched); err != nil {
		return t, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.Patience)
	defer cancel()
	return t, errors.Join(t.publishing.WaitReady(ctx), t.following.WaitReady(ctx))
}

// brokers returns the broker of the publishing node, and sets the other node's and cut.
func (t *trial) brokers(ctx context.Context) (from broker.HistoryBroker, err error) {
	if t.Broker == Simulated {
		hub := broker.NewMemory(broker.MemoryOptions{})
		t.watched = &watched{HistoryBroker: hub.Node(), model: &t.Model}
		t.cut = t.watched.set
		return hub.Node(), nil
	}
	at, err := url.Parse(t.URL)
	if err != nil {
		return nil, fmt.Errorf("recovery: %w", err)
	}
	l, err := newLink(ctx, at.Host)
	if err != nil {
		return nil, err
	}
	t.closers = append(t.closers, l.close)
	t.cut = func(_ context.Context, cut bool) error {
		l.set(cut)
		return nil
	}
	at.Host = l.listener.Addr().String()
	if from, err = nodes.Connect(t.URL); err != nil {
		return nil, err
	}
	to, err := nodes.Connect(at.String())
	t.watched = &watched{HistoryBroker: to}
	return from, err
}

func (t *trial) manager(b broker.Broker) (*manager.Manager, error) {
	m, err := manager.New(manager.Options{Broker: b, MaxSubscriptionsPerUser: -1})
	if err == nil {
		t.closers = append(t.closers, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), t.Patience)
			defer cancel()
			return m.Close(ctx)
		})
	}
	return m, err
}

// fill publishes the stored messages and follows all uploads.
func (t *trial) fill(ctx context.Context, r *Result) error {
	ctx, cancel := context.WithTimeout(ctx, t.Patience)
	defer cancel()
	all := t.uploads(func(int) bool { return true })
	for range t.Stored {
		if err := t.publishEach(ctx, t.publishing, all); err != nil {
			return err
		}
	}
	began := time.Now()
	err := t.follow(ctx, t.following)
	r.Followed = time.Since(began)
	return err
}

// uploads lists the uploads for which a condition holds.
func (t *trial) uploads(condition func(int) bool) (all []int) {
	for i := range t.Uploads {
		if condition(i) {
			all = append(all, i)
		}
	}
	return all
}

// liveUploads returns the uploads that get live messages: half of them change during the cut.
func (t *trial) liveUploads() []int {
	quiet, busy := mostLive/2, min(mostLive/2, max(1, int(float64(t.Uploads)*t.Changed)/2))
	return t.uploads(func(i int) bool {
		left := &quiet
		if t.changes(i) {
			left = &busy
		}
		*left--
		return *left >= 0
	})
}

// interrupt cuts the link, mends it, and measures the return.
func (t *trial) interrupt(ctx context.Context, r *Result) error {
	t.measureFrom(time.Now())
	_ = worker.Sleep(ctx, settle) // the end of ctx ends the calls below
	r.Before = t.live.Percentiles()
	t.pausing.Store(true)
	if err := t.cut(ctx, true); err != nil {
		return err
	}
	known := t.newest()
	end := time.Now().Add(t.Cut)
	busy := t.liveUploads()
	changed := t.uploads(func(i int) bool { return t.changes(i) && !slices.Contains(busy, i) })
	if err := t.publishEach(ctx, t.publishing, changed); err != nil {
		return err
	}
	_ = worker.Sleep(ctx, time.Until(end))
	t.pausing.Store(false)
	wanted := t.newest()
	for i := range wanted {
		if wanted[i] != known[i] {
			r.Changed++
		}
	}
	_ = t.watched.calls() // those before do not count
	t.watched.healthy.Store(0)
	mended := time.Now()
	mending := make(chan error, 1)
	go func() { mending <- t.cut(ctx, false) }()
	err := t.awaitReturn(ctx, mended, wanted, r)
	if err == nil {
		r.Calls = t.watched.calls()
		_ = worker.Sleep(ctx, settle-time.Since(mended))
		r.Live, r.Behind = t.live.Percentiles(), t.behind.Percentiles()
		r.Disorder = t.disorder.Load()
	}
	return errors.Join(err, <-mending)
}

// awaitReturn notes when the node is healthy, current and ready.
func (t *trial) awaitReturn(ctx context.Context, mended time.Time, wanted []uint64, r *Result) error {
	ctx, cancel := context.WithTimeout(ctx, t.Patience)
	defer cancel()
	behind := 0 // all uploads before it are current
	for r.Current == 0 || r.Ready == 0 {
		if worker.Sleep(ctx, time.Millisecond) != nil {
			return fmt.Errorf("recovery: not current after %v: %w", t.Patience, t.following.Ready())
		}
		if at := t.watched.healthy.Load(); r.Healthy == 0 && at != 0 {
			r.Healthy = time.Unix(0, at).Sub(mended)
			t.measureFrom(time.Unix(0, at))
		}
		for behind < len(wanted) && t.received[behind].Load() >= wanted[behind] {
			behind++
		}
		if r.Current == 0 && r.Healthy > 0 && behind == len(wanted) {
			r.Current = time.Since(mended)
		}
		if r.Ready == 0 && r.Healthy > 0 && t.following.Ready() == nil {
			r.Ready = time.Since(mended)
		}
	}
	return nil
}

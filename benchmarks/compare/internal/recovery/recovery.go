package recovery

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/manager"
)

// The brokers.
const (
	NATS      = "nats"
	Redis     = "redis"
	Simulated = "simulated" // in memory, with the costs of a Model
)

// Options describe one trial.
type Options struct {
	Broker string
	// URL is where the server of NATS or Redis is.
	URL string
	// Uploads are followed. Each has Stored messages before.
	Uploads, Stored, Bytes int
	// Changed is the share of the uploads that get a message during the cut, which lasts Cut.
	Changed float64
	Cut     time.Duration
	// Rate is the number of live messages per second, half of them to uploads that change during the cut.
	Rate  float64
	Model Model
	// Patience bounds each step.
	Patience time.Duration
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
	Before, Live, Behind Latency
	// Calls were made by the node from the mending until all was current.
	Calls    Calls
	Disorder int64
}

// liveUploads is how many uploads get live messages.
const liveUploads = 200

// settle is how long live messages are measured beside the return.
const settle = 3 * time.Second

// Run makes one trial.
func Run(ctx context.Context, o Options) (r Result, err error) {
	t, err := open(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if err := t.fill(ctx, &r); err != nil {
		return r, err
	}
	traffic := goLive(ctx, t.publisher, t.live(), o.Rate, func(i int) bool { return !t.changes(i) })
	err = t.interrupt(ctx, traffic, &r)
	return r, errors.Join(err, traffic.stop())
}

// trial are two nodes: the publishing one keeps its broker, the following one is cut off.
type trial struct {
	Options
	publisher *publisher
	followers *followers
	following *manager.Manager
	observed  *observed
	cut       func(ctx context.Context, cut bool) error
	closers   []func() error
}

func open(ctx context.Context, o Options) (t *trial, err error) {
	t = &trial{Options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	from, to, err := t.brokers(ctx)
	if err != nil {
		return t, err
	}
	t.observed = &observed{HistoryBroker: to}
	publishing, err := t.manager(from)
	if err != nil {
		return t, err
	}
	if t.following, err = t.manager(t.observed); err != nil {
		return t, err
	}
	t.publisher = &publisher{publishing, o.Bytes, make([]atomic.Uint64, o.Uploads)}
	t.followers = newFollowers(o.Uploads, t.changes)
	ctx, cancel := context.WithTimeout(ctx, o.Patience)
	defer cancel()
	return t, errors.Join(publishing.WaitReady(ctx), t.following.WaitReady(ctx))
}

// brokers returns the brokers of both nodes and sets cut.
func (t *trial) brokers(ctx context.Context) (from, to broker.HistoryBroker, err error) {
	if t.Broker == Simulated {
		hub := broker.NewMemory(broker.MemoryOptions{})
		m := &modelled{HistoryBroker: hub.Node(), model: t.Model}
		t.cut = m.set
		return hub.Node(), m, nil
	}
	at, err := url.Parse(t.URL)
	if err != nil {
		return nil, nil, fmt.Errorf("recovery: %w", err)
	}
	l, err := newLink(ctx, at.Host)
	if err != nil {
		return nil, nil, err
	}
	t.closers = append(t.closers, l.close)
	t.cut = func(_ context.Context, cut bool) error {
		l.set(cut)
		return nil
	}
	at.Host = l.addr()
	if from, err = newBroker(t.Broker, t.URL); err != nil {
		return nil, nil, err
	}
	to, err = newBroker(t.Broker, at.String())
	return from, to, err
}

func newBroker(name, at string) (broker.HistoryBroker, error) {
	switch name {
	case NATS:
		return natsbroker.New(natsbroker.Options{URL: at})
	case Redis:
		return redisbroker.New(redisbroker.Options{URL: at})
	}
	return nil, fmt.Errorf("recovery: the broker is %q, want %s, %s or %s", name, NATS, Redis, Simulated)
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

func (t *trial) close() (err error) {
	for i := range t.closers {
		err = errors.Join(err, t.closers[len(t.closers)-1-i]())
	}
	return err
}

// fill publishes the stored messages and follows all uploads.
func (t *trial) fill(ctx context.Context, r *Result) error {
	ctx, cancel := context.WithTimeout(ctx, t.Patience)
	defer cancel()
	for range t.Stored {
		if err := t.publisher.each(ctx, t.all()); err != nil {
			return err
		}
	}
	began := time.Now()
	err := t.followers.follow(ctx, t.following)
	r.Followed = time.Since(began)
	return err
}

// changes reports whether an upload changes during the cut: the changed ones lie evenly among all.
func (t *trial) changes(upload int) bool {
	return int(float64(upload+1)*t.Changed) > int(float64(upload)*t.Changed)
}

func (t *trial) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range t.Uploads {
			if !yield(i) {
				return
			}
		}
	}
}

// changed yields the uploads that change during the cut and have no live messages.
func (t *trial) changed() iter.Seq[int] {
	return func(yield func(int) bool) {
		busy := make(map[int]bool)
		for _, i := range t.live() {
			busy[i] = true
		}
		for i := range t.all() {
			if t.changes(i) && !busy[i] && !yield(i) {
				return
			}
		}
	}
}

// live returns the uploads that get live messages: half of them change during the cut.
func (t *trial) live() (uploads []int) {
	quiet, busy := liveUploads/2, min(liveUploads/2, max(1, int(float64(t.Uploads)*t.Changed)/2))
	for i := range t.Uploads {
		switch {
		case t.changes(i) && busy > 0:
			busy--
			uploads = append(uploads, i)
		case !t.changes(i) && quiet > 0:
			quiet--
			uploads = append(uploads, i)
		}
	}
	return uploads
}

// interrupt cuts the link, mends it, and measures the return.
func (t *trial) interrupt(ctx context.Context, traffic *live, r *Result) error {
	t.followers.measureFrom(time.Now())
	pause(ctx, settle)
	r.Before, _ = t.followers.latencies()
	traffic.pausing.Store(true)
	if err := t.cut(ctx, true); err != nil {
		return err
	}
	known := t.newest()
	end := time.Now().Add(t.Cut)
	if err := t.publisher.each(ctx, t.changed()); err != nil {
		return err
	}
	pause(ctx, time.Until(end))
	traffic.pausing.Store(false)
	wanted := t.newest()
	for i := range wanted {
		if wanted[i] != known[i] {
			r.Changed++
		}
	}
	before := t.observed.calls()
	t.observed.healthy.Store(0)
	mended := time.Now()
	mending := make(chan error, 1)
	go func() { mending <- t.cut(ctx, false) }()
	err := t.awaitReturn(ctx, mended, wanted, r)
	if err == nil {
		r.Calls = t.observed.calls().since(before)
		pause(ctx, settle-time.Since(mended))
		r.Live, r.Behind = t.followers.latencies()
		r.Disorder = t.followers.disorder.Load()
	}
	return errors.Join(err, <-mending)
}

// newest returns the number of the newest message of each upload.
func (t *trial) newest() []uint64 {
	numbers := make([]uint64, t.Uploads)
	for i := range numbers {
		numbers[i] = t.publisher.numbers[i].Load()
	}
	return numbers
}

// awaitReturn notes when the node is healthy, current and ready.
func (t *trial) awaitReturn(ctx context.Context, mended time.Time, wanted []uint64, r *Result) error {
	ctx, cancel := context.WithTimeout(ctx, t.Patience)
	defer cancel()
	behind := 0 // all uploads before it are current
	for r.Current == 0 || r.Ready == 0 {
		if !pause(ctx, time.Millisecond) {
			return fmt.Errorf("recovery: not current after %v: %w", t.Patience, t.following.Ready())
		}
		if at := t.observed.healthy.Load(); r.Healthy == 0 && at != 0 {
			r.Healthy = time.Unix(0, at).Sub(mended)
			t.followers.measureFrom(time.Unix(0, at))
		}
		for behind < len(wanted) && t.followers.newest[behind].Load() >= wanted[behind] {
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

// pause waits, and reports whether ctx has not ended.
func pause(ctx context.Context, wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}

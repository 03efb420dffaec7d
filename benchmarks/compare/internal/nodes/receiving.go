package nodes

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// receiver are the connections of a node.
type receiver struct {
	sinks []*sink
	times *times
}

func newReceiver() *receiver {
	return &receiver{times: &times{all: hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)}}
}

// follow blocks until as many users as there are uploads follow one each, as soon as the broker can be reached.
func (r *receiver) follow(ctx context.Context, m *manager.Manager, uploads int) error {
	for i := len(r.sinks); i < uploads; i++ {
		s := &sink{times: r.times, newest: make([]uint64, MaxPublishers)}
		user := "user-" + strconv.Itoa(i)
		if err := m.Connect(user, s); err != nil {
			return err
		}
		err := retryUnavailable(ctx, func() error {
			return m.SubscribeConn(ctx, user, s, message.Channel(i), manager.SubscribeOptions{})
		})
		if err != nil {
			return err
		}
		r.sinks = append(r.sinks, s)
	}
	return nil
}

// retryUnavailable tries again while the broker is out of reach.
func retryUnavailable(ctx context.Context, try func() error) error {
	const often = 10 * time.Millisecond
	again := time.NewTicker(often)
	defer again.Stop()
	for {
		err := try()
		if !errors.Is(err, manager.ErrUnavailable) {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// wait blocks until the number of messages has been received, at most for some time.
func (r *receiver) wait(total uint64, most time.Duration) {
	const often = time.Millisecond
	again := time.NewTicker(often)
	defer again.Stop()
	late := time.NewTimer(most)
	defer late.Stop()
	for {
		if got, _, _ := r.counts(); got >= total {
			return
		}
		select {
		case <-again.C:
		case <-late.C:
			return
		}
	}
}

// counts adds up the messages of the sinks.
func (r *receiver) counts() (got, disorder uint64, last int64) {
	for _, s := range r.sinks {
		got += s.got.Load()
		disorder += s.disorder.Load()
		last = max(last, s.last.Load())
	}
	return got, disorder, last
}

// sink is a connection that counts and times its messages. Send is called with its upload's lock held, so by one
// goroutine at a time.
type sink struct {
	times         *times
	newest        []uint64 // by publisher
	got, disorder atomic.Uint64
	last          atomic.Int64
}

func (s *sink) Send(f *manager.Frame) manager.Outcome {
	now := time.Now().UnixNano()
	sent, isMessage := message.SentAt(f.Body())
	number, isNumber := message.NumberOf(f.Body())
	if !isMessage || !isNumber || number < MaxPublishers {
		return manager.Queued // a greeting, which does not count
	}
	who, n := number%MaxPublishers, number/MaxPublishers
	if n != s.newest[who]+1 {
		s.disorder.Add(1)
	}
	s.newest[who] = n
	s.times.add(now - sent)
	s.last.Store(now)
	s.got.Add(1)
	return manager.Queued
}

func (s *sink) Close(manager.CloseReason) {}

// times are latencies. All methods may be called from any number of goroutines.
type times struct {
	mu  sync.Mutex // protects all
	all *hdrhistogram.Histogram
}

func (t *times) add(nanoseconds int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.all.RecordValue(nanoseconds / int64(time.Microsecond)) // longer than a minute is not waited for
}

func (t *times) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all.Reset()
}

// percentiles returns nanoseconds.
func (t *times) percentiles() (p50, p99, p999 int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := func(percent float64) int64 { return t.all.ValueAtPercentile(percent) * int64(time.Microsecond) }
	return at(50), at(99), at(99.9)
}

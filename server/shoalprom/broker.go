package shoalprom

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-go/shoal/broker"
)

// Broker returns a broker that counts and times the calls of another one. It is a broker.HistoryBroker and a
// broker.IdempotentBroker if the other one is.
func (m *Metrics) Broker(b broker.Broker) broker.Broker {
	counted := &countedBroker{Broker: b, calls: m.calls}
	history, ok := b.(broker.HistoryBroker)
	if !ok {
		return counted
	}
	stored := &countedHistoryBroker{counted, history}
	if idempotent, ok := b.(broker.IdempotentBroker); ok {
		return &countedIdempotentBroker{stored, idempotent}
	}
	return stored
}

// call are the metrics of one kind of call.
type call struct {
	ok, unavailable, refused prometheus.Counter
	time                     prometheus.Observer
}

// newCalls returns the metrics of all calls.
func newCalls(count *prometheus.CounterVec, time *prometheus.HistogramVec) map[string]call {
	calls := map[string]call{}
	for _, name := range []string{
		"subscribe", "unsubscribe", "publish", "store", "history", "newest", "positions", "forget",
		"store_once", "check_once",
	} {
		calls[name] = call{
			ok:          count.WithLabelValues(name, "ok"),
			unavailable: count.WithLabelValues(name, "unavailable"),
			refused:     count.WithLabelValues(name, "refused"),
			time:        time.WithLabelValues(name),
		}
	}
	return calls
}

// done counts a call. A call that its caller has cancelled counts as unavailable too.
func (c call) done(begin time.Time, err error) {
	c.time.Observe(time.Since(begin).Seconds())
	switch {
	case err == nil:
		c.ok.Inc()
	case errors.Is(err, broker.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		c.unavailable.Inc()
	default:
		c.refused.Inc()
	}
}

type countedBroker struct {
	broker.Broker
	calls map[string]call // never changes
}

func (c *countedBroker) Subscribe(ctx context.Context, channels ...string) error {
	begin := time.Now()
	err := c.Broker.Subscribe(ctx, channels...)
	c.calls["subscribe"].done(begin, err)
	return err
}

func (c *countedBroker) Unsubscribe(ctx context.Context, channels ...string) error {
	begin := time.Now()
	err := c.Broker.Unsubscribe(ctx, channels...)
	c.calls["unsubscribe"].done(begin, err)
	return err
}

func (c *countedBroker) Publish(ctx context.Context, channel string, payload []byte) error {
	begin := time.Now()
	err := c.Broker.Publish(ctx, channel, payload)
	c.calls["publish"].done(begin, err)
	return err
}

// countedHistoryBroker is countedBroker for a broker that stores messages.
type countedHistoryBroker struct {
	*countedBroker
	history broker.HistoryBroker
}

func (c *countedHistoryBroker) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	begin := time.Now()
	pos, err := c.history.Store(ctx, channel, payload)
	c.calls["store"].done(begin, err)
	return pos, err
}

func (c *countedHistoryBroker) History(
	ctx context.Context, channel string, since broker.Position,
) (broker.Snapshot, error) {
	begin := time.Now()
	snapshot, err := c.history.History(ctx, channel, since)
	c.calls["history"].done(begin, err)
	return snapshot, err
}

func (c *countedHistoryBroker) Newest(ctx context.Context, channel string) (broker.Snapshot, error) {
	begin := time.Now()
	snapshot, err := c.history.Newest(ctx, channel)
	c.calls["newest"].done(begin, err)
	return snapshot, err
}

func (c *countedHistoryBroker) Positions(ctx context.Context, channels ...string) ([]broker.Position, error) {
	begin := time.Now()
	positions, err := c.history.Positions(ctx, channels...)
	c.calls["positions"].done(begin, err)
	return positions, err
}

func (c *countedHistoryBroker) Forget(ctx context.Context, channel string) error {
	begin := time.Now()
	err := c.history.Forget(ctx, channel)
	c.calls["forget"].done(begin, err)
	return err
}

// countedIdempotentBroker is countedHistoryBroker for a broker that recognises repetitions.
type countedIdempotentBroker struct {
	*countedHistoryBroker
	idempotent broker.IdempotentBroker
}

func (c *countedIdempotentBroker) StoreOnce(
	ctx context.Context, channel string, payload []byte, once broker.Once,
) (at broker.Position, replayed bool, err error) {
	begin := time.Now()
	at, replayed, err = c.idempotent.StoreOnce(ctx, channel, payload, once)
	c.calls["store_once"].done(begin, err)
	return at, replayed, err
}

func (c *countedIdempotentBroker) CheckOnce(ctx context.Context, channel string, once broker.Once) error {
	begin := time.Now()
	err := c.idempotent.CheckOnce(ctx, channel, once)
	c.calls["check_once"].done(begin, err)
	return err
}

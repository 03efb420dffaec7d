package recovery

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// observed is a broker that counts the calls of a node and notes when it last became healthy.
type observed struct {
	broker.HistoryBroker
	subscribes, histories, newests, comparisons, compared atomic.Int64
	stores, publishes                                     atomic.Int64
	healthy                                               atomic.Int64 // Unix time in nanoseconds; 0 while it is not
}

// Calls are the calls of a node to its broker.
type Calls struct {
	// Histories and Newests are reads of one upload each. Comparisons ask for the positions of Compared uploads together.
	Histories, Newests, Comparisons, Compared int64
	Subscribes, Stores, Publishes             int64
}

func (o *observed) calls() Calls {
	return Calls{
		Histories: o.histories.Load(), Newests: o.newests.Load(), Comparisons: o.comparisons.Load(),
		Compared: o.compared.Load(), Subscribes: o.subscribes.Load(), Stores: o.stores.Load(), Publishes: o.publishes.Load(),
	}
}

// since returns the calls that were made after others.
func (c Calls) since(before Calls) Calls {
	return Calls{
		Histories: c.Histories - before.Histories, Newests: c.Newests - before.Newests,
		Comparisons: c.Comparisons - before.Comparisons, Compared: c.Compared - before.Compared,
		Subscribes: c.Subscribes - before.Subscribes, Stores: c.Stores - before.Stores,
		Publishes: c.Publishes - before.Publishes,
	}
}

// Run notes the broker's health.
func (o *observed) Run(ctx context.Context, h broker.Handler) error {
	return o.HistoryBroker.Run(ctx, healthNoted{h, o})
}

type healthNoted struct {
	broker.Handler
	observed *observed
}

// Health notes when the broker became healthy.
func (h healthNoted) Health(err error) {
	at := int64(0)
	if err == nil {
		at = time.Now().UnixNano()
	}
	h.observed.healthy.Store(at)
	h.Handler.Health(err)
}

// Subscribe counts a call.
func (o *observed) Subscribe(ctx context.Context, channels ...string) error {
	o.subscribes.Add(1)
	return o.HistoryBroker.Subscribe(ctx, channels...)
}

// History counts a call.
func (o *observed) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	o.histories.Add(1)
	return o.HistoryBroker.History(ctx, channel, since)
}

// Newest counts a call.
func (o *observed) Newest(ctx context.Context, channel string) (broker.Snapshot, error) {
	o.newests.Add(1)
	return o.HistoryBroker.Newest(ctx, channel)
}

// Positions counts a call and its channels.
func (o *observed) Positions(ctx context.Context, channels ...string) ([]broker.Position, error) {
	o.comparisons.Add(1)
	o.compared.Add(int64(len(channels)))
	return o.HistoryBroker.Positions(ctx, channels...)
}

// Store counts a call.
func (o *observed) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	o.stores.Add(1)
	return o.HistoryBroker.Store(ctx, channel, payload)
}

// Publish counts a call.
func (o *observed) Publish(ctx context.Context, channel string, payload []byte) error {
	o.publishes.Add(1)
	return o.HistoryBroker.Publish(ctx, channel, payload)
}

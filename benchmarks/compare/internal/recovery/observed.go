package recovery

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// observed is a broker that counts the calls of a node and notes when it last became healthy.
type observed struct {
	broker.HistoryBroker
	healthy atomic.Int64 // Unix time in nanoseconds; 0 while it is not

	mu   sync.Mutex // protects made
	made Calls
}

// Calls are the calls of a node to its broker. Histories and Newests read one upload each; Comparisons ask for the positions
// of Compared uploads together.
type Calls struct{ Histories, Newests, Comparisons, Compared, Stores int64 }

// since returns the calls that were made after others.
func (c Calls) since(before Calls) Calls {
	return Calls{
		c.Histories - before.Histories, c.Newests - before.Newests, c.Comparisons - before.Comparisons,
		c.Compared - before.Compared, c.Stores - before.Stores,
	}
}

func (o *observed) calls() Calls {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.made
}

func (o *observed) count(call *int64, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	*call += int64(n)
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

// History counts a call.
func (o *observed) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	o.count(&o.made.Histories, 1)
	return o.HistoryBroker.History(ctx, channel, since)
}

// Newest counts a call.
func (o *observed) Newest(ctx context.Context, channel string) (broker.Snapshot, error) {
	o.count(&o.made.Newests, 1)
	return o.HistoryBroker.Newest(ctx, channel)
}

// Positions counts a call and its channels.
func (o *observed) Positions(ctx context.Context, channels ...string) ([]broker.Position, error) {
	o.count(&o.made.Comparisons, 1)
	o.count(&o.made.Compared, len(channels))
	return o.HistoryBroker.Positions(ctx, channels...)
}

// Store counts a call.
func (o *observed) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	o.count(&o.made.Stores, 1)
	return o.HistoryBroker.Store(ctx, channel, payload)
}

package recovery

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/broker"
)

// Model are the costs of a modelled broker. It serves one request at a time, as Redis and a NATS stream do.
type Model struct {
	RoundTrip  time.Duration `default:"500us" within:"0 to 1m" help:"Time of a call to the simulated broker, beside its own."`
	Read       time.Duration `default:"30us" within:"0 to 1m" help:"Time that it needs to read one upload."`
	PerChannel time.Duration `default:"4us" within:"0 to 1m" help:"Time that it needs for each channel of a subscription or comparison."`
}

// Calls are the calls of a node to its broker. Histories and Newests read one upload each; Comparisons ask for the positions
// of Compared uploads together.
type Calls struct{ Histories, Newests, Comparisons, Compared, Stores int64 }

// watched is the broker of a node. It counts the calls and notes when it last became healthy. With a model, which a broker in
// memory needs, its calls take time and its link can be cut.
type watched struct {
	broker.HistoryBroker
	model   *Model       // nil: the broker takes its own time
	healthy atomic.Int64 // Unix time in nanoseconds; 0 while it is not
	cut     atomic.Bool
	handler atomic.Pointer[broker.Handler]
	// channels is the number of subscriptions that a reconnection restores.
	channels atomic.Int64

	server sync.Mutex // held while the modelled server works; the time that it owes is slept under it
	owed   time.Duration

	histories, newests, comparisons, compared, stores atomic.Int64
}

// calls returns the calls that were made since it was called last.
func (w *watched) calls() Calls {
	return Calls{w.histories.Swap(0), w.newests.Swap(0), w.comparisons.Swap(0), w.compared.Swap(0), w.stores.Swap(0)}
}

var errCut = errors.Join(broker.ErrUnavailable, errors.New("the link is cut"))

// Run notes the broker's health, and delivers messages while the link is not cut.
func (w *watched) Run(ctx context.Context, h broker.Handler) error {
	h = watchedHandler{h, w}
	w.handler.Store(&h)
	return w.HistoryBroker.Run(ctx, h)
}

type watchedHandler struct {
	broker.Handler
	watched *watched
}

// Health notes when the broker became healthy.
func (h watchedHandler) Health(err error) {
	at := int64(0)
	if err == nil {
		at = time.Now().UnixNano()
	}
	h.watched.healthy.Store(at)
	h.Handler.Health(err)
}

// Receive drops messages while the link is cut.
func (h watchedHandler) Receive(m broker.Message) {
	if !h.watched.cut.Load() {
		h.Handler.Receive(m)
	}
}

// set cuts the link of a model, or mends it and returns when the subscriptions are restored.
func (w *watched) set(ctx context.Context, cut bool) error {
	h := *w.handler.Load()
	if cut {
		w.cut.Store(true)
		h.Health(errCut)
		return nil
	}
	if err := w.wait(ctx, w.model.PerChannel*time.Duration(w.channels.Load())); err != nil {
		return err
	}
	w.cut.Store(false)
	h.Interrupted()
	h.Health(nil)
	return nil
}

// call takes the time that the modelled server needs to read uploads, or for channels.
func (w *watched) call(ctx context.Context, reads, channels int) error {
	switch {
	case w.model == nil:
		return nil
	case w.cut.Load():
		return errCut
	}
	return w.wait(ctx, w.model.Read*time.Duration(reads)+w.model.PerChannel*time.Duration(channels))
}

// wait occupies the server for a time, and waits for the round trip. The server sleeps only when it owes a millisecond:
// timers are not more precise.
func (w *watched) wait(ctx context.Context, work time.Duration) error {
	w.server.Lock()
	if w.owed += work; w.owed >= time.Millisecond {
		began := time.Now()
		<-time.After(w.owed)
		w.owed -= time.Since(began)
	}
	w.server.Unlock()
	return worker.Sleep(ctx, w.model.RoundTrip)
}

// Subscribe takes the time of its channels.
func (w *watched) Subscribe(ctx context.Context, channels ...string) error {
	if err := w.call(ctx, 0, len(channels)); err != nil {
		return err
	}
	w.channels.Add(int64(len(channels)))
	return w.HistoryBroker.Subscribe(ctx, channels...)
}

// History takes the time of a read.
func (w *watched) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	w.histories.Add(1)
	if err := w.call(ctx, 1, 0); err != nil {
		return broker.Snapshot{}, err
	}
	return w.HistoryBroker.History(ctx, channel, since)
}

// Newest counts a call.
func (w *watched) Newest(ctx context.Context, channel string) (broker.Snapshot, error) {
	w.newests.Add(1)
	return w.HistoryBroker.Newest(ctx, channel)
}

// Positions takes the time of its channels.
func (w *watched) Positions(ctx context.Context, channels ...string) ([]broker.Position, error) {
	w.comparisons.Add(1)
	w.compared.Add(int64(len(channels)))
	if err := w.call(ctx, 0, len(channels)); err != nil {
		return nil, err
	}
	return w.HistoryBroker.Positions(ctx, channels...)
}

// Store counts a call.
func (w *watched) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	w.stores.Add(1)
	return w.HistoryBroker.Store(ctx, channel, payload)
}

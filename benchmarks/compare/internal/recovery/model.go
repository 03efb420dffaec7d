package recovery

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// Model are the costs of a modelled broker. It serves one request at a time, as Redis and a NATS stream do.
type Model struct {
	RoundTrip  time.Duration `default:"500us" help:"Time of a call to the simulated broker, beside its own."`
	Read       time.Duration `default:"30us" help:"Time that it needs to read one upload."`
	PerChannel time.Duration `default:"4us" help:"Time that it needs for each channel of a subscription or comparison."`
}

// modelled is a node of a broker in memory whose calls take time, and whose link can be cut.
type modelled struct {
	broker.HistoryBroker
	model   Model
	server  sync.Mutex // held while the server works; the time that it owes is slept under it
	owed    time.Duration
	cut     atomic.Bool
	handler atomic.Pointer[broker.Handler]
	// channels is the number of subscriptions that a reconnection restores.
	channels atomic.Int64
}

var errCut = errors.Join(broker.ErrUnavailable, errors.New("the link is cut"))

// Run delivers messages while the link is not cut.
func (m *modelled) Run(ctx context.Context, h broker.Handler) error {
	m.handler.Store(&h)
	return m.HistoryBroker.Run(ctx, uncut{h, m})
}

type uncut struct {
	broker.Handler
	modelled *modelled
}

// Receive drops messages while the link is cut.
func (u uncut) Receive(b broker.Message) {
	if !u.modelled.cut.Load() {
		u.Handler.Receive(b)
	}
}

// set cuts the link, or mends it and returns when the subscriptions are restored.
func (m *modelled) set(ctx context.Context, cut bool) error {
	h := *m.handler.Load()
	if cut {
		m.cut.Store(true)
		h.Health(errCut)
		return nil
	}
	if err := m.wait(ctx, m.model.PerChannel*time.Duration(m.channels.Load())); err != nil {
		return err
	}
	m.cut.Store(false)
	h.Interrupted()
	h.Health(nil)
	return nil
}

// call waits for the time that a call takes.
func (m *modelled) call(ctx context.Context, work time.Duration) error {
	if m.cut.Load() {
		return errCut
	}
	return m.wait(ctx, work)
}

// wait occupies the server for a time, and waits for the round trip. The server sleeps only when it owes a millisecond:
// timers are not more precise.
func (m *modelled) wait(ctx context.Context, work time.Duration) error {
	m.server.Lock()
	if m.owed += work; m.owed >= time.Millisecond {
		began := time.Now()
		<-time.After(m.owed)
		m.owed -= time.Since(began)
	}
	m.server.Unlock()
	select {
	case <-time.After(m.model.RoundTrip):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Subscribe takes the time of its channels.
func (m *modelled) Subscribe(ctx context.Context, channels ...string) error {
	if err := m.call(ctx, m.model.PerChannel*time.Duration(len(channels))); err != nil {
		return err
	}
	m.channels.Add(int64(len(channels)))
	return m.HistoryBroker.Subscribe(ctx, channels...)
}

// History takes the time of a read.
func (m *modelled) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	if err := m.call(ctx, m.model.Read); err != nil {
		return broker.Snapshot{}, err
	}
	return m.HistoryBroker.History(ctx, channel, since)
}

// Positions takes the time of its channels.
func (m *modelled) Positions(ctx context.Context, channels ...string) ([]broker.Position, error) {
	if err := m.call(ctx, m.model.PerChannel*time.Duration(len(channels))); err != nil {
		return nil, err
	}
	return m.HistoryBroker.Positions(ctx, channels...)
}

package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// Run connects, and hands to h what arrives, until ctx ends; see broker.Broker. The error names wrong credentials,
// a server that is too old or has no JetStream, or the setting of an existing stream that will not do.
func (b *Broker) Run(ctx context.Context, h broker.Handler) error {
	k := &keeper{opt: b.opt, handler: h}
	s, err := k.connect(ctx)
	if err != nil || s == nil {
		return err
	}
	defer s.close()
	b.session.Store(s)
	defer b.session.Store(nil)
	k.health(nil)
	k.watch(ctx, s)
	return nil
}

// keeper keeps a session going. It belongs to Run's goroutine.
type keeper struct {
	opt     Options
	handler broker.Handler
	// told is whether the handler has been told of any state, sick the error it was told last.
	told bool
	sick error

	cuts    uint64    // how many losses of the connection have been dealt with
	unsure  bool      // whether the stream has to be looked at, and messages may have been lost
	created time.Time // when the stream was made
	rounds  uint64    // how often has been looked
	sent    uint64    // the number of the newest probe
	heard   uint64    // the number of the newest that came back
	silent  int       // for how many intervals none has
}

// health tells the handler if something has changed.
func (k *keeper) health(err error) {
	if k.told && (err == nil) == (k.sick == nil) && (err == nil || err.Error() == k.sick.Error()) {
		return
	}
	k.told, k.sick = true, err
	k.handler.Health(err)
}

// Bounds of the wait between two attempts to connect.
const (
	shortestWait = 50 * time.Millisecond
	longestWait  = 5 * time.Second
)

// waitBefore returns how long to wait before an attempt, with some jitter, so that nodes do not come all at once.
func waitBefore(attempt int) time.Duration {
	wait := longestWait
	if attempt < 16 {
		wait = min(wait, shortestWait<<attempt)
	}
	return wait/2 + rand.N(wait/2)
}

// connect tries until it succeeds, or never will. It returns nil if ctx ends.
func (k *keeper) connect(ctx context.Context) (*session, error) {
	for attempt := 0; ; attempt++ {
		s, err := k.attempt(ctx)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		if errors.As(err, new(hopeless)) {
			return nil, err
		}
		k.health(fmt.Errorf("%w: %w", broker.ErrUnavailable, err))
		select {
		case <-time.After(waitBefore(attempt)):
		case <-ctx.Done():
			return nil, nil
		}
	}
}

func (k *keeper) attempt(ctx context.Context) (*session, error) {
	s, err := dial(ctx, k.opt, k.handler)
	if err != nil {
		return nil, err
	}
	if err := checkVersion(s.conn.ConnectedServerVersion()); err != nil {
		s.close()
		return nil, err
	}
	info, err := k.opt.ensureStream(ctx, s.conn)
	if err == nil {
		k.created, s.replicated = info.Created, info.Config.Replicas > 1
		err = s.open()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// watch looks after a session until ctx ends.
func (k *keeper) watch(ctx context.Context, s *session) {
	tick := time.NewTicker(k.opt.ProbeInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.turned:
			k.look(ctx, s)
		case <-tick.C:
			k.rounds++
			k.listen(s)
			k.look(ctx, s)
		case <-ctx.Done():
			return
		}
	}
}

// rarely is how many looks there are to one at whether the stream is still the same.
const rarely = 5

// look finds out whether all is well, and tells the handler.
func (k *keeper) look(ctx context.Context, s *session) {
	if cuts := s.cuts.Load(); cuts != k.cuts {
		k.cuts, k.unsure, k.silent = cuts, true, 0
	}
	if !s.conn.IsConnected() {
		k.unsure = true
		k.health(fmt.Errorf("%w: %w", broker.ErrUnavailable, s.trouble()))
		return
	}
	if k.unsure || s.missing.Swap(false) || k.rounds%rarely == 0 {
		if err := k.lookAtStream(ctx, s); err != nil {
			k.unsure = true
			k.health(fmt.Errorf("%w: %w", broker.ErrUnavailable, err))
			return
		}
	}
	if k.silent >= patience {
		k.unsure = true
		k.health(fmt.Errorf("%w: natsbroker: hears nothing of what it sends", broker.ErrUnavailable))
		return
	}
	if k.unsure {
		k.unsure = false
		k.handler.Interrupted()
	}
	k.health(nil)
}

// lookAtStream makes the stream anew if it is gone. Then, or if another node did, messages have been lost.
func (k *keeper) lookAtStream(ctx context.Context, s *session) error {
	info, err := k.opt.ensureStream(ctx, s.conn)
	if err != nil {
		return err
	}
	if !info.Created.Equal(k.created) {
		k.opt.Logger.Warn("the stream was made anew", "stream", k.opt.Stream)
		k.created, k.unsure = info.Created, true
	}
	return nil
}

// patience is how many intervals may pass without that anything is heard.
const patience = 3

// listen finds out whether probes come back, and sends the next.
func (k *keeper) listen(s *session) {
	heard := s.heard.Load()
	if k.silent++; heard != k.heard || !s.conn.IsConnected() {
		k.heard, k.silent = heard, 0
	}
	k.sent++
	// The error says that the connection is being lost, which is found out elsewhere.
	_ = s.conn.Publish(s.probe, strconv.AppendUint(nil, k.sent, 10))
}

package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// shard is the connections to one server: the only one, the present master of a group, or one of a cluster's.
// run keeps it connected. Its methods may be called from any number of goroutines.
type shard struct {
	broker  *Broker
	addr    string
	handler broker.Handler
	changed func() // says that state or orphans have changed; does not block

	slot    atomic.Int32         // one of the server's, in a cluster
	line    atomic.Pointer[line] // nil while the server is out of reach
	renewal sync.Mutex           // held while line is being replaced by another of the same client

	mu      sync.Mutex // protects the fields below; nothing is called while it is held
	open    bool       // whether waiting is being worked off
	waiting []*request
	held    map[string]struct{} // the channels subscribed to, or to be subscribed to when the server is back
	orphans []string            // channels that were held, until the server said that it has them no more
	wrong   error               // nil while all is well
	full    error               // nil while messages can be stored

	wake   chan struct{} // holds a token when something is waiting
	logged string        // the last logged state; only run uses it
}

// errConnecting is wrapped by the fault of a shard whose first attempt to connect has not ended.
var errConnecting = errors.New("not connected yet")

func newShard(b *Broker, addr string, h broker.Handler, changed func()) *shard {
	return &shard{
		broker: b, addr: addr, handler: h, changed: changed,
		held: make(map[string]struct{}), wake: make(chan struct{}, 1),
		wrong: fmt.Errorf("redisbroker: %s: %w: %w", addr, errConnecting, broker.ErrUnavailable),
	}
}

// Pauses between attempts to connect. The first comes after a connection that was of use.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 3 * time.Second
)

// run keeps the shard connected until ctx ends.
func (s *shard) run(ctx context.Context) {
	pause := firstPause
	for again := false; ctx.Err() == nil; {
		worked, err := s.session(ctx, again)
		if ctx.Err() != nil {
			break
		}
		if worked {
			pause, again = firstPause, true
		}
		s.report(whileConnecting(s.addr, err))
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, maxPause)
	}
	s.close(unavailable("the broker does not run"))
	s.hangUp()
}

// session connects, restores the subscriptions, and attends to the connections until one of them fails. It
// reports whether they were of use.
func (s *shard) session(ctx context.Context, again bool) (worked bool, err error) {
	l, err := s.connect(ctx)
	if err != nil {
		s.hangUp()
		return false, err
	}
	e := s.listen(l)
	defer e.close()
	defer func() { s.close(unavailable(s.addr + ": " + lostWords(err))) }()
	if err := s.restore(ctx, e); err != nil {
		return false, err
	}
	if err := s.tryOut(ctx, l, e); err != nil {
		return false, err
	}
	s.begin(e, again)
	touching, stop := context.WithCancel(ctx)
	var touchers sync.WaitGroup
	touchers.Go(func() { s.touch(touching) })
	defer touchers.Wait()
	defer stop()
	err = s.attend(ctx, e)
	if e.mute {
		s.hangUp() // or commands would wait for a server that does not answer
	}
	return true, err
}

func lostWords(err error) string {
	if err == nil {
		return "the connection has ended"
	}
	return said(err)
}

// connect returns the connection to the server, a new one unless the present one still serves.
func (s *shard) connect(ctx context.Context) (*line, error) {
	if old := s.line.Load(); old != nil {
		err := s.renew(ctx, old)
		return s.line.Load(), err
	}
	client, err := s.broker.dial(ctx, s.addr, s.broker.target.login, s.broker.target.db)
	if err != nil {
		return nil, err
	}
	l, err := s.broker.attach(ctx, s.addr, client)
	if err != nil {
		client.Close()
		return nil, err
	}
	s.line.Store(l)
	return l, nil
}

// renew replaces a line whose term has ended by one to the server that answers now.
func (s *shard) renew(ctx context.Context, old *line) error {
	s.renewal.Lock()
	defer s.renewal.Unlock()
	if s.line.Load() != old {
		return nil
	}
	l, err := s.broker.attach(ctx, s.addr, old.client)
	if err == nil {
		s.line.CompareAndSwap(old, l) // unless the session has hung up
	}
	return err
}

// hangUp ends commands, including waiting ones.
func (s *shard) hangUp() {
	if l := s.line.Swap(nil); l != nil {
		l.client.Close()
	}
}

// restore subscribes to all channels that are held.
func (s *shard) restore(ctx context.Context, e *ears) error {
	refusals, err := s.subscribeEach(ctx, e, s.channels())
	for channel, refusal := range refusals {
		if !hasMoved(kind(refusal)) {
			return refusal
		}
		s.evicted(channel)
	}
	return err
}

// tryOut returns when a message to ourselves has come back, and one could be stored: an operation that we are not allowed to
// do shows here.
func (s *shard) tryOut(ctx context.Context, l *line, e *ears) error {
	ctx, cancel := context.WithTimeout(ctx, s.broker.opt.Timeout)
	defer cancel()
	if err := e.do(ctx, e.conn.B().Subscribe().Channel(e.probe).Build()); err != nil {
		return s.missingPermission(err, "subscribe to "+probePrefix+"*")
	}
	if err := l.client.Do(ctx, l.client.B().Publish().Channel(e.probe).Message("").Build()).Error(); err != nil {
		return s.missingPermission(err, "publish to "+probePrefix+"*")
	}
	if err := s.tryPermissions(ctx, l, e); err != nil {
		return err
	}
	stored := l.client.Do(ctx, l.send(storeScript, s.storeProbe(e), nil)).Error()
	if stored != nil && !hasMoved(kind(stored)) {
		return inScript(stored, s.broker.scripts(l.term)[storeScript])
	}
	select {
	case <-e.echo:
		e.heard.Store(0)
		return nil
	case err := <-e.lost:
		return err
	case <-ctx.Done():
		return errDeaf
	}
}

// setSlot notes one of the server's slots in a cluster.
func (s *shard) setSlot(p part) {
	if len(p.ranges) > 0 {
		s.slot.Store(int32(p.ranges[0].first)) //nolint:gosec // less than slots
	}
}

// storeProbe returns the key under which the shard tries to store a message. In a cluster it belongs to a slot of this
// server, because another one may have memory left while this one is full.
func (s *shard) storeProbe(e *ears) string {
	channel := e.probe
	if tags := s.broker.naming.tags; tags != nil {
		channel = probePrefix + tags[s.slot.Load()] + strings.TrimPrefix(channel, probePrefix)
	}
	return s.broker.naming.key(channel + ":kept")
}

// begin opens the shard for requests.
func (s *shard) begin(e *ears, again bool) {
	s.mu.Lock()
	s.open = true
	s.wrong = nil
	s.mu.Unlock()
	if s.logged != "" {
		s.logged = ""
		s.broker.opt.Logger.Info("redisbroker: connected again", "address", s.addr)
	}
	if channels := s.channels(); again && s.broker.target.mode != cluster {
		s.handler.Interrupted()
	} else if again && len(channels) > 0 {
		s.handler.Interrupted(channels...)
	}
	s.changed()
}

// setFull notes whether the server has memory left for messages, which nothing but storing one shows.
func (s *shard) setFull(err error) {
	s.mu.Lock()
	was := s.full
	s.full = err
	s.mu.Unlock()
	if (was == nil) == (err == nil) {
		return
	}
	if err != nil {
		s.broker.opt.Logger.Warn("redisbroker: messages cannot be stored", "error", err)
	}
	s.changed()
}

// report records a fault.
func (s *shard) report(err error) {
	s.mu.Lock()
	s.wrong = err
	s.mu.Unlock()
	if text := err.Error(); text != s.logged {
		s.logged = text
		s.broker.opt.Logger.Warn("redisbroker: not connected", "error", err)
	}
	s.changed()
}

// state returns the present fault, or nil.
func (s *shard) state() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrong == nil {
		return s.full
	}
	return s.wrong
}

// away returns the error of a command while the server is out of reach.
func (s *shard) away() error {
	if err := s.state(); errors.Is(err, broker.ErrUnavailable) {
		return err
	}
	return unavailable(s.addr + ": not connected")
}

// channels returns the held channels.
func (s *shard) channels() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	channels := make([]string, 0, len(s.held))
	for channel := range s.held {
		channels = append(channels, channel)
	}
	return channels
}

// follows reports whether a channel is held.
func (s *shard) follows(channel string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, held := s.held[channel]
	return held
}

// takeOrphans returns the channels that the server has ended the subscriptions to, once.
func (s *shard) takeOrphans() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	orphans := s.orphans
	s.orphans = nil
	return orphans
}

// expel ends all subscriptions to channels that belong to another shard now, so that nothing arrives twice.
func (s *shard) expel(ctx context.Context, channels []string) {
	s.letGo(channels)
	_ = s.ask(ctx, &request{channels: channels, force: true, done: make(chan error, 1)})
}

// evicted takes down that the server has ended a subscription by itself, which clusters do.
func (s *shard) evicted(channel string) {
	s.mu.Lock()
	_, held := s.held[channel]
	if held {
		delete(s.held, channel)
		s.orphans = append(s.orphans, channel)
	}
	s.mu.Unlock()
	if held {
		s.changed()
	}
}

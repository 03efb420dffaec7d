package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/internal/health"
)

// server keeps the connections to one Redis server: the only one, the current master of a group, or a master of a
// cluster. run keeps it connected. Its methods may be called from any number of goroutines.
type server struct {
	broker  *Broker
	addr    string
	handler broker.Handler
	changed func() // called when currentFault or orphans have changed; does not block
	stop    func() // ends run and waits for it; set by topology

	slot    atomic.Int32                // one of the server's, in a cluster
	conn    atomic.Pointer[commandConn] // nil while the server is out of reach
	renewal sync.Mutex                  // held while conn is replaced by another of the same client

	mu         sync.Mutex // protects the fields below; no function is called while it is held
	open       bool       // whether the subscription loop runs
	waiting    []*request
	held       map[string]struct{} // the channels subscribed to, or to be subscribed to when the server is back
	orphans    []string            // channels whose subscriptions the server has ended
	fault      error               // nil while connected
	storeFault error               // nil while messages can be stored
	refused    error               // why a call could not store a message since the last probe, or nil

	wake    chan struct{}  // holds a token when requests are waiting
	logged  string         // the last logged state; only run uses it
	evicts  string         // the last logged policy of eviction; only run uses it
	storage health.Storage // only run uses it
}

// errConnecting is wrapped by the fault of a server whose first attempt to connect has not ended.
var errConnecting = errors.New("not connected yet")

func newServer(b *Broker, addr string, h broker.Handler, changed func()) *server {
	return &server{
		broker: b, addr: addr, handler: h, changed: changed,
		held: make(map[string]struct{}), wake: make(chan struct{}, 1),
		fault: fmt.Errorf("redisbroker: %s: %w: %w", addr, errConnecting, broker.ErrUnavailable),
	}
}

// Pauses between attempts to connect. The first follows a connection that passed the self-test.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 3 * time.Second
)

// run keeps the server connected until ctx ends.
func (s *server) run(ctx context.Context) {
	pause := firstPause
	for again := false; ctx.Err() == nil; {
		worked, err := s.session(ctx, again)
		if ctx.Err() != nil {
			break
		}
		if worked {
			pause, again = firstPause, true
		}
		s.setFault(s.broker.connectError(s.addr, err))
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, maxPause)
	}
	s.close(unavailable("the broker does not run"))
	s.closeConn()
}

// session connects, restores the subscriptions, and serves requests until a connection fails. It reports whether the
// connections passed the self-test.
func (s *server) session(ctx context.Context, again bool) (worked bool, err error) {
	l, err := s.connect(ctx)
	if err != nil {
		s.closeConn()
		return false, err
	}
	p := s.openPubSub(l)
	defer p.close()
	defer func() { s.close(unavailable(s.addr + ": " + lossReason(err))) }()
	if err := s.resubscribe(ctx, p); err != nil {
		return false, err
	}
	if err := s.selfTest(ctx, l, p); err != nil {
		return false, err
	}
	s.warnOfEviction(l.evicts)
	s.markOpen(p, again)
	touching, stop := context.WithCancel(ctx)
	var touchers sync.WaitGroup
	touchers.Go(func() { s.touch(touching) })
	defer touchers.Wait()
	defer stop()
	err = s.serve(ctx, p)
	if p.unresponsive {
		s.closeConn() // or commands would wait for a server that does not answer
	}
	return true, err
}

func lossReason(err error) string {
	if err == nil {
		return "the connection has ended"
	}
	return errorText(err)
}

// connect returns the command connection, a new one unless the current one still works.
func (s *server) connect(ctx context.Context) (*commandConn, error) {
	if old := s.conn.Load(); old != nil {
		err := s.renew(ctx, old)
		return s.conn.Load(), err
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
	s.conn.Store(l)
	return l, nil
}

// renew replaces a command connection whose term has ended by one for the current term.
func (s *server) renew(ctx context.Context, old *commandConn) error {
	s.renewal.Lock()
	defer s.renewal.Unlock()
	if s.conn.Load() != old {
		return nil
	}
	l, err := s.broker.attach(ctx, s.addr, old.client)
	if err == nil {
		s.conn.CompareAndSwap(old, l) // unless the session has closed it
	}
	return err
}

// closeConn closes the command connection; pending commands fail.
func (s *server) closeConn() {
	if l := s.conn.Swap(nil); l != nil {
		l.client.Close()
	}
}

// resubscribe subscribes to all held channels.
func (s *server) resubscribe(ctx context.Context, p *pubsub) error {
	refusals, err := s.subscribeEach(ctx, p, s.channels())
	for channel, refusal := range refusals {
		if !hasMoved(errorCode(refusal)) {
			return refusal
		}
		s.markOrphaned(channel)
	}
	return err
}

// selfTest returns when a probe has come back and a message has been stored. Missing permissions show here.
func (s *server) selfTest(ctx context.Context, l *commandConn, p *pubsub) error {
	ctx, cancel := context.WithTimeout(ctx, s.broker.opt.Timeout)
	defer cancel()
	if err := p.do(ctx, p.conn.B().Subscribe().Channel(p.probe).Build()); err != nil {
		return s.missingPermission(err, "subscribe to "+probePrefix+"*")
	}
	if err := l.client.Do(ctx, l.client.B().Publish().Channel(p.probe).Message("").Build()).Error(); err != nil {
		return s.missingPermission(err, "publish to "+probePrefix+"*")
	}
	if err := s.tryPermissions(ctx, l, p); err != nil {
		return err
	}
	switch stored := l.client.Do(ctx, l.send(storeScript, s.storeProbe(p), nil)).Error(); {
	case stored == nil:
		s.setStoreFault(s.storage.Probe(nil, false))
	case errorCode(stored) == outOfMemory: // messages that are not stored come through
		s.setStoreFault(s.storage.Probe(callError(ctx, s.addr, stored), false))
	case !hasMoved(errorCode(stored)):
		return s.scriptError(stored, s.broker.scripts(l.term)[storeScript])
	}
	select {
	case <-p.echo:
		p.echoes.Store(0)
		return nil
	case err := <-p.lost:
		return err
	case <-ctx.Done():
		return errNoEcho
	}
}

// setSlot notes one of the server's slots in a cluster.
func (s *server) setSlot(p serverSlots) {
	if len(p.ranges) > 0 {
		s.slot.Store(int32(p.ranges[0].first)) //nolint:gosec // less than slots
	}
}

// probeName returns a name that begins with prefix. In a cluster it belongs to a slot of this server: each server has
// memory and users of its own.
func (s *server) probeName(prefix, rest string) string {
	if tags := s.broker.naming.tags; tags != nil {
		prefix += tags[s.slot.Load()]
	}
	return prefix + rest
}

// storeProbe returns the key under which the server tries to store a message.
func (s *server) storeProbe(p *pubsub) string {
	return s.broker.naming.key(s.probeName(probePrefix, strings.TrimPrefix(p.probe, probePrefix)+":kept"))
}

// markOpen makes the server accept requests.
func (s *server) markOpen(p *pubsub, again bool) {
	s.mu.Lock()
	s.open = true
	s.fault = nil
	s.mu.Unlock()
	if s.logged != "" {
		s.logged = ""
		s.broker.opt.Logger.Info("redisbroker: connected again", "address", s.addr)
	}
	if again {
		s.interrupt()
	}
	s.changed()
}

// interrupt reports that messages of the server's channels may have been lost.
func (s *server) interrupt() {
	if channels := s.channels(); s.broker.target.mode != cluster {
		s.handler.Interrupted()
	} else if len(channels) > 0 {
		s.handler.Interrupted(channels...)
	}
}

// warnOfEviction logs that the server drops stored messages when its memory is full, which no call reports. policy is
// the result of evictionPolicy, which an operator may change while the node is connected.
func (s *server) warnOfEviction(policy string) {
	was := s.evicts
	if s.evicts = policy; policy == "" || policy == was {
		return
	}
	s.broker.opt.Logger.Warn("redisbroker: the server may evict stored messages", "address", s.addr,
		"maxmemory_policy", policy,
		"consequence", "accepted messages disappear, and one with an Idempotency-Key may be published twice",
		"remedy", "CONFIG SET maxmemory-policy "+keepsAll)
}

// refuseStore records that the server has refused to store a message for want of memory.
func (s *server) refuseStore(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = err
}

// takeRefusal returns and clears the refusal of a call.
func (s *server) takeRefusal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.refused
	s.refused = nil
	return err
}

// hasRoom reports whether the memory of a server, by the answer of INFO, is clearly below its limit, or has none. A
// server that evicts keys has room as soon as it stores a message again.
func hasRoom(info string) bool {
	const percent = 95
	used, _ := strconv.ParseUint(infoField(info, "used_memory"), 10, 64)
	limit, _ := strconv.ParseUint(infoField(info, "maxmemory"), 10, 64)
	return limit == 0 || infoField(info, "maxmemory_policy") != keepsAll || used < limit/100*percent
}

// setStoreFault records why messages cannot be stored, nil if they can. Only an attempt to store one shows that.
func (s *server) setStoreFault(err error) {
	s.mu.Lock()
	was := s.storeFault
	s.storeFault = err
	s.mu.Unlock()
	if (was == nil) == (err == nil) {
		return
	}
	if err != nil {
		s.broker.opt.Logger.Warn("redisbroker: messages cannot be stored", "error", err)
	}
	s.changed()
}

// setFault records why the server is not connected, and logs it once.
func (s *server) setFault(err error) {
	s.mu.Lock()
	s.fault = err
	s.mu.Unlock()
	if text := health.Reason(err); text != s.logged {
		s.logged = text
		s.broker.opt.Logger.Warn("redisbroker: not connected", "error", err)
	}
	s.changed()
}

// currentFault returns the current fault, or nil.
func (s *server) currentFault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		return s.storeFault
	}
	return s.fault
}

// unavailableError returns the error of a command while the server is unreachable.
func (s *server) unavailableError() error {
	if err := s.currentFault(); errors.Is(err, broker.ErrUnavailable) {
		return err
	}
	return unavailable(s.addr + ": not connected")
}

// channels returns the held channels.
func (s *server) channels() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	channels := make([]string, 0, len(s.held))
	for channel := range s.held {
		channels = append(channels, channel)
	}
	return channels
}

// follows reports whether a channel is held.
func (s *server) follows(channel string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, held := s.held[channel]
	return held
}

// drainOrphans returns and clears the orphans.
func (s *server) drainOrphans() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	orphans := s.orphans
	s.orphans = nil
	return orphans
}

// forceUnsubscribe ends all subscriptions to channels that belong to another server now, so that no message arrives
// twice.
func (s *server) forceUnsubscribe(ctx context.Context, channels []string) {
	s.removeHeld(channels)
	_ = s.submit(ctx, &request{channels: channels, force: true, done: make(chan error, 1)})
}

// markOrphaned records that the server has ended a subscription by itself, which clusters do.
func (s *server) markOrphaned(channel string) {
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

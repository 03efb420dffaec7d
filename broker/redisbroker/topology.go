package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/internal/health"
)

// topology discovers the Redis servers, keeps a server connected for each, routes channels to them and reports their
// health.
type topology struct {
	broker  *Broker
	handler broker.Handler
	routes  atomic.Pointer[routes]
	wake    chan struct{} // holds a token when servers have changed
	stale   atomic.Bool   // whether to discover the servers again

	mu      sync.Mutex          // protects orphans; held for moments only
	orphans map[string]struct{} // channels to subscribe to that no server holds

	// Only run uses the fields below.
	servers     map[string]*server // by address
	discoverErr error              // of the last discovery
	informant   string             // answered the last discovery, so that servers that freeze delay one discovery only
	reported    bool               // whether Health has been called
	health      error              // argument of the last call of Health
	wasHealthy  bool               // whether all servers were connected once
}

// routes maps channels to servers. It is immutable.
type routes struct {
	servers []*server
	owner   []int16 // by slot, an index of servers, or -1; nil outside a cluster, where there is one server
}

func newTopology(b *Broker, h broker.Handler) *topology {
	return &topology{
		broker: b, handler: h,
		wake: make(chan struct{}, 1), orphans: make(map[string]struct{}), servers: make(map[string]*server),
		discoverErr: unavailable("not connected yet"),
	}
}

// Intervals of discovery, while all servers are connected and otherwise, and the longest wait until a server has
// subscribed to orphans.
const (
	discoverInterval = 5 * time.Second
	retryInterval    = 200 * time.Millisecond
	assignTimeout    = 2 * time.Second
)

// run keeps servers connected until ctx ends. It returns an error of the first connection that a retry does not fix.
func (t *topology) run(ctx context.Context) error {
	defer t.close()
	every := time.NewTicker(discoverInterval)
	defer every.Stop()
	t.stale.Store(true)
	for {
		if t.stale.Swap(false) {
			t.update(ctx)
		}
		t.assignOrphans(ctx)
		if err := t.reportHealth(); err != nil || ctx.Err() != nil {
			return err
		}
		var again <-chan time.Time
		if t.incomplete() {
			again = time.After(retryInterval)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		case <-every.C:
			t.stale.Store(t.broker.target.mode != single)
		case <-again:
			t.stale.Store(true)
		}
	}
}

// close stops all servers and waits for them.
func (t *topology) close() {
	var ending sync.WaitGroup
	for _, s := range t.servers {
		ending.Go(s.stop)
	}
	ending.Wait()
}

// changed makes run check its servers. It does not block.
func (t *topology) changed() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// rediscover makes run discover the servers again. It does not block.
func (t *topology) rediscover() {
	t.stale.Store(true)
	t.changed()
}

// incomplete reports whether to discover the servers again after retryInterval.
func (t *topology) incomplete() bool {
	t.mu.Lock()
	orphans := len(t.orphans)
	t.mu.Unlock()
	return orphans > 0 || t.discoverErr != nil || t.health != nil && t.broker.target.mode != single
}

// update discovers the servers, starts and stops them accordingly, and replaces the routes.
func (t *topology) update(ctx context.Context) {
	layout, informant, err := t.broker.discover(ctx, t.informant, t.known())
	t.informant, t.discoverErr = informant, err
	if err != nil {
		return
	}
	next := &routes{}
	if t.broker.target.mode == cluster {
		next.owner = slices.Repeat([]int16{-1}, slots)
	}
	for i, part := range layout {
		s := t.servers[part.addr]
		if s == nil {
			s = t.start(ctx, part)
		}
		s.setSlot(part)
		next.servers = append(next.servers, s)
		for _, r := range part.ranges {
			for slot := r.first; slot <= r.last; slot++ {
				next.owner[slot] = int16(i)
			}
		}
	}
	t.routes.Store(next)
	for addr, s := range t.servers {
		if !slices.Contains(next.servers, s) {
			s.stop()
			delete(t.servers, addr)
			t.addOrphans(s.removeHeld(s.channels()))
		}
	}
	t.detachMisrouted(ctx, next)
}

// known returns the addresses of the servers.
func (t *topology) known() []string {
	var addrs []string
	for addr := range t.servers {
		addrs = append(addrs, addr)
	}
	return addrs
}

// start returns a new server that runs.
func (t *topology) start(ctx context.Context, p serverSlots) *server {
	s := newServer(t.broker, p.addr, t.handler, t.changed)
	s.setSlot(p)
	running, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() { s.run(running) })
	s.stop = func() {
		cancel()
		ended.Wait()
	}
	t.servers[p.addr] = s
	return s
}

// detachMisrouted detaches channels from servers that they no longer belong to.
func (t *topology) detachMisrouted(ctx context.Context, r *routes) {
	if r.owner == nil {
		return
	}
	for _, s := range r.servers {
		var others []string
		for _, channel := range s.channels() {
			if owner := r.of(channel); owner != nil && owner != s {
				others = append(others, channel)
			}
		}
		if len(others) > 0 {
			t.detach(ctx, s, others)
		}
	}
}

// detach makes channels of a server orphans and unsubscribes from them there.
func (t *topology) detach(ctx context.Context, s *server, channels []string) {
	limited, cancel := context.WithTimeout(ctx, assignTimeout)
	defer cancel()
	t.addOrphans(channels)
	s.forceUnsubscribe(limited, channels)
}

func (t *topology) addOrphans(channels []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, channel := range channels {
		t.orphans[channel] = struct{}{}
	}
}

// assignOrphans subscribes to orphans at the servers that they belong to, and reports that they may have missed
// messages.
func (t *topology) assignOrphans(ctx context.Context) {
	for _, s := range t.servers {
		if lost := s.drainOrphans(); len(lost) > 0 {
			t.detach(ctx, s, lost)
			t.stale.Store(true)
		}
	}
	byShard := make(map[*server][]string)
	r := t.routes.Load()
	t.mu.Lock()
	for channel := range t.orphans {
		if s := r.of(channel); s != nil {
			byShard[s] = append(byShard[s], channel)
		}
	}
	t.mu.Unlock()
	for s, channels := range byShard {
		limited, cancel := context.WithTimeout(ctx, assignTimeout)
		err := s.subscribe(limited, channels)
		if cancel(); err != nil {
			continue
		}
		home, unwanted := t.removeOrphans(channels)
		if len(unwanted) > 0 {
			_ = s.enqueue(&request{channels: unwanted, done: make(chan error, 1)})
		}
		if len(home) > 0 {
			t.handler.Interrupted(home...)
		}
	}
}

// removeOrphans removes channels from the orphans and returns the removed ones as home. The others have been
// unsubscribed from while they were orphans.
func (t *topology) removeOrphans(channels []string) (home, unwanted []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, channel := range channels {
		if _, ok := t.orphans[channel]; ok {
			delete(t.orphans, channel)
			home = append(home, channel)
		} else {
			unwanted = append(unwanted, channel)
		}
	}
	return home, unwanted
}

// reportHealth calls Health if the reason has changed. It returns an error that a retry does not fix, unless all
// servers were connected once.
func (t *topology) reportHealth() error {
	err := t.fault()
	if err != nil && !t.wasHealthy && isFatal(err) {
		return err
	}
	t.wasHealthy = t.wasHealthy || err == nil
	starting := !t.reported && errors.Is(err, errConnecting) // not a fault
	if same := t.reported && health.Reason(err) == health.Reason(t.health); !same && !starting {
		t.handler.Health(err)
		t.reported = true
	}
	t.health = err
	return nil
}

// fault returns a fault of a server or of the topology, or nil.
func (t *topology) fault() error {
	var wrong error
	for _, s := range t.servers {
		if err := s.currentFault(); wrong == nil || isFatal(err) {
			wrong = err
		}
	}
	if wrong != nil {
		return wrong
	}
	r := t.routes.Load()
	if r == nil {
		return t.discoverErr
	}
	if slices.Contains(r.owner, -1) {
		return unavailable("a part of the cluster has no server")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.orphans) > 0 {
		return unavailable(fmt.Sprintf("%d channels wait for a server to take them", len(t.orphans)))
	}
	return nil
}

// of returns the server that a channel belongs to, or nil if it is not known.
func (r *routes) of(channel string) *server {
	switch {
	case r == nil:
		return nil
	case r.owner == nil:
		return r.servers[0]
	}
	if owner := r.owner[slotOf(channel)]; owner >= 0 {
		return r.servers[owner]
	}
	return nil
}

// of returns the server that a channel belongs to, or an error that says that no server has it.
func (t *topology) of(channel string) (*server, error) {
	if s := t.routes.Load().of(channel); s != nil {
		return s, nil
	}
	t.rediscover()
	return nil, unavailable("the server that has the channel is not known")
}

// split groups channels by the servers that they belong to.
func (t *topology) split(channels []string) (map[*server][]string, error) {
	parts := make(map[*server][]string)
	for _, channel := range channels {
		s, err := t.of(channel)
		if err != nil {
			return nil, err
		}
		parts[s] = append(parts[s], channel)
	}
	return parts, nil
}

// subscribe returns when all channels are subscribed to. After an error none of them is.
func (t *topology) subscribe(ctx context.Context, channels []string) error {
	parts, err := t.split(channels)
	if err != nil {
		return err
	}
	if err = each(parts, func(s *server, some []string) error { return s.subscribe(ctx, some) }); err == nil {
		return nil
	}
	_ = each(parts, func(s *server, some []string) error {
		return s.enqueue(&request{channels: some, done: make(chan error, 1)})
	})
	return err
}

// unsubscribe ends subscriptions; it returns when the servers have confirmed that.
func (t *topology) unsubscribe(ctx context.Context, channels []string) error {
	t.removeOrphans(channels)
	parts, err := t.split(channels)
	if err != nil {
		return nil // a channel without a server has no subscription
	}
	return each(parts, func(s *server, some []string) error { return s.unsubscribe(ctx, some) })
}

// each calls fn for all parts at once, waits, and returns one of the errors.
func each(parts map[*server][]string, fn func(*server, []string) error) error {
	results := make(chan error, len(parts))
	for s, channels := range parts {
		if len(parts) == 1 {
			return fn(s, channels)
		}
		go func() { results <- fn(s, channels) }()
	}
	var first error
	for range parts {
		if err := <-results; err != nil && first == nil {
			first = err
		}
	}
	return first
}

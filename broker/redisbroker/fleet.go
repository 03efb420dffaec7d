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
)

// fleet is all servers that a Broker has to do with while it runs. It finds out which they are, has a shard for each,
// brings each channel to the server that it belongs to, and tells how all that goes.
type fleet struct {
	broker  *Broker
	handler broker.Handler
	routes  atomic.Pointer[routes]
	wake    chan struct{} // holds a token when something has changed
	doubt   atomic.Bool   // whether the servers may be others than those known

	mu      sync.Mutex          // protects orphans; held for moments only
	orphans map[string]struct{} // the channels to be subscribed to that no shard holds

	// Only run uses the fields below.
	crews  map[string]*crew // by address
	failed error            // why the servers could not be found out last, or nil
	told   bool             // whether Health has been called
	health error            // with what
	once   bool             // whether all was well once
}

// crew is a shard that runs.
type crew struct {
	*shard
	stop func() // returns when it runs no more
}

// routes says which server a channel belongs to. It is not changed once it is made.
type routes struct {
	shards []*shard
	owner  []int16 // by slot, an index of shards, or -1; nil outside a cluster, where there is one shard
}

func newFleet(b *Broker, h broker.Handler) *fleet {
	return &fleet{
		broker: b, handler: h,
		wake: make(chan struct{}, 1), orphans: make(map[string]struct{}), crews: make(map[string]*crew),
		failed: unavailable("not connected yet"),
	}
}

// Times between looks at which servers there are, and for how long to wait for one of them to take orphans.
const (
	lookEvery  = 5 * time.Second
	lookAgain  = 200 * time.Millisecond
	placeLimit = 2 * time.Second
)

// run keeps the fleet until ctx ends. The error is one of the first connection that no waiting would mend.
func (f *fleet) run(ctx context.Context) error {
	defer f.disband()
	every := time.NewTicker(lookEvery)
	defer every.Stop()
	f.doubt.Store(true)
	for {
		if f.doubt.Swap(false) {
			f.arrange(ctx)
		}
		f.place(ctx)
		if err := f.tell(); err != nil || ctx.Err() != nil {
			return err
		}
		var again <-chan time.Time
		if f.unsettled() {
			again = time.After(lookAgain)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		case <-every.C:
			f.doubt.Store(f.broker.target.mode != single)
		case <-again:
			f.doubt.Store(true)
		}
	}
}

// disband ends all shards.
func (f *fleet) disband() {
	var ending sync.WaitGroup
	for _, c := range f.crews {
		ending.Go(c.stop)
	}
	ending.Wait()
}

// changed makes run look at its shards. It does not block.
func (f *fleet) changed() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// look makes run discover the servers again. It does not block.
func (f *fleet) look() {
	f.doubt.Store(true)
	f.changed()
}

// unsettled reports whether to look again soon.
func (f *fleet) unsettled() bool {
	f.mu.Lock()
	orphans := len(f.orphans)
	f.mu.Unlock()
	return orphans > 0 || f.failed != nil || f.health != nil && f.broker.target.mode != single
}

// arrange finds out which servers there are, and makes the shards follow.
func (f *fleet) arrange(ctx context.Context) {
	layout, err := f.broker.discover(ctx, f.known())
	f.failed = err
	if err != nil {
		return
	}
	next := &routes{}
	if f.broker.target.mode == cluster {
		next.owner = slices.Repeat([]int16{-1}, slots)
	}
	for i, part := range layout {
		c := f.crews[part.addr]
		if c == nil {
			c = f.hire(ctx, part)
		}
		c.setSlot(part)
		next.shards = append(next.shards, c.shard)
		for _, r := range part.ranges {
			for slot := r.first; slot <= r.last; slot++ {
				next.owner[slot] = int16(i)
			}
		}
	}
	f.routes.Store(next)
	for addr, c := range f.crews {
		if !slices.Contains(next.shards, c.shard) {
			c.stop()
			delete(f.crews, addr)
			f.orphan(c.letGo(c.channels()))
		}
	}
	f.evict(ctx, next)
}

// known returns the addresses of the shards.
func (f *fleet) known() []string {
	var addrs []string
	for addr := range f.crews {
		addrs = append(addrs, addr)
	}
	return addrs
}

// hire makes a shard and runs it.
func (f *fleet) hire(ctx context.Context, p part) *crew {
	s := newShard(f.broker, p.addr, f.handler, f.changed)
	s.setSlot(p)
	running, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() { s.run(running) })
	c := &crew{shard: s, stop: func() {
		cancel()
		ended.Wait()
	}}
	f.crews[p.addr] = c
	return c
}

// evict takes from the shards the channels that are another's.
func (f *fleet) evict(ctx context.Context, r *routes) {
	if r.owner == nil {
		return
	}
	for _, s := range r.shards {
		var others []string
		for _, channel := range s.channels() {
			if owner := r.of(channel); owner != nil && owner != s {
				others = append(others, channel)
			}
		}
		if len(others) > 0 {
			f.take(ctx, s, others)
		}
	}
}

// take takes channels from a shard.
func (f *fleet) take(ctx context.Context, s *shard, channels []string) {
	limited, cancel := context.WithTimeout(ctx, placeLimit)
	defer cancel()
	f.orphan(channels)
	s.expel(limited, channels)
}

func (f *fleet) orphan(channels []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, channel := range channels {
		f.orphans[channel] = struct{}{}
	}
}

// place brings orphans to the shards that they belong to, and says that they may have missed something.
func (f *fleet) place(ctx context.Context) {
	for _, c := range f.crews {
		if lost := c.takeOrphans(); len(lost) > 0 {
			f.take(ctx, c.shard, lost)
			f.doubt.Store(true)
		}
	}
	byShard := make(map[*shard][]string)
	r := f.routes.Load()
	f.mu.Lock()
	for channel := range f.orphans {
		if s := r.of(channel); s != nil {
			byShard[s] = append(byShard[s], channel)
		}
	}
	f.mu.Unlock()
	for s, channels := range byShard {
		limited, cancel := context.WithTimeout(ctx, placeLimit)
		err := s.subscribe(limited, channels)
		if cancel(); err != nil {
			continue
		}
		home, unwanted := f.settle(channels)
		if len(unwanted) > 0 {
			_ = s.enqueue(&request{channels: unwanted, done: make(chan error, 1)})
		}
		if len(home) > 0 {
			f.handler.Interrupted(home...)
		}
	}
}

// settle removes channels from the orphans and returns the removed ones. The others have been
// unsubscribed from in the meantime.
func (f *fleet) settle(channels []string) (home, unwanted []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, channel := range channels {
		if _, ok := f.orphans[channel]; ok {
			delete(f.orphans, channel)
			home = append(home, channel)
		} else {
			unwanted = append(unwanted, channel)
		}
	}
	return home, unwanted
}

// tell calls Health if it has changed. It returns an error that no waiting would mend, if all was never well.
func (f *fleet) tell() error {
	err := f.sum()
	if err != nil && !f.once && isFatal(err) {
		return err
	}
	f.once = f.once || err == nil
	starting := !f.told && errors.Is(err, errConnecting) // a normal start is no fault
	if same := f.told && (err == nil) == (f.health == nil); !same && !starting {
		f.handler.Health(err)
		f.told = true
	}
	f.health = err
	return nil
}

// sum returns the faults of all servers, or nil.
func (f *fleet) sum() error {
	var wrong error
	for _, c := range f.crews {
		if err := c.state(); wrong == nil || isFatal(err) {
			wrong = err
		}
	}
	if wrong != nil {
		return wrong
	}
	r := f.routes.Load()
	if r == nil {
		return f.failed
	}
	if slices.Contains(r.owner, -1) {
		return unavailable("a part of the cluster has no server")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.orphans) > 0 {
		return unavailable(fmt.Sprintf("%d channels wait for a server to take them", len(f.orphans)))
	}
	return nil
}

// of returns the shard that a channel belongs to, or nil if it is not known.
func (r *routes) of(channel string) *shard {
	switch {
	case r == nil:
		return nil
	case r.owner == nil:
		return r.shards[0]
	}
	if owner := r.owner[slotOf(channel)]; owner >= 0 {
		return r.shards[owner]
	}
	return nil
}

// of returns the shard that a channel belongs to, or an error that says that no server has it.
func (f *fleet) of(channel string) (*shard, error) {
	if s := f.routes.Load().of(channel); s != nil {
		return s, nil
	}
	f.look()
	return nil, unavailable("the server that has the channel is not known")
}

// split groups channels by the shards that they belong to.
func (f *fleet) split(channels []string) (map[*shard][]string, error) {
	parts := make(map[*shard][]string)
	for _, channel := range channels {
		s, err := f.of(channel)
		if err != nil {
			return nil, err
		}
		parts[s] = append(parts[s], channel)
	}
	return parts, nil
}

// subscribe returns when all channels are subscribed to. After an error none of them is.
func (f *fleet) subscribe(ctx context.Context, channels []string) error {
	parts, err := f.split(channels)
	if err != nil {
		return err
	}
	if err = each(parts, func(s *shard, some []string) error { return s.subscribe(ctx, some) }); err == nil {
		return nil
	}
	_ = each(parts, func(s *shard, some []string) error {
		return s.enqueue(&request{channels: some, done: make(chan error, 1)})
	})
	return err
}

// unsubscribe takes subscribe back.
func (f *fleet) unsubscribe(ctx context.Context, channels []string) error {
	f.settle(channels)
	parts, err := f.split(channels)
	if err != nil {
		return nil // a channel without a server has no subscription
	}
	return each(parts, func(s *shard, some []string) error { return s.unsubscribe(ctx, some) })
}

// each calls fn for all parts at once, waits, and returns one of the errors.
func each(parts map[*shard][]string, fn func(*shard, []string) error) error {
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

package manager

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// faulty is a node's broker whose link can be cut and can lose messages.
type faulty struct {
	broker.Keeper

	mu      sync.Mutex // protects what follows
	handler broker.Handler
	down    bool                      // nothing gets through, and every call fails
	lose    func(broker.Message) bool // which messages are lost on their way here
	calls   map[string]int            // how often each call was made
}

func (f *faulty) Run(ctx context.Context, h broker.Handler) error {
	f.mu.Lock()
	f.handler = h
	f.mu.Unlock()
	return f.Keeper.Run(ctx, f)
}

func (f *faulty) Receive(m broker.Message) {
	f.mu.Lock()
	lost := f.down || f.lose != nil && f.lose(m)
	f.mu.Unlock()
	if !lost {
		f.handler.Receive(m)
	}
}

func (f *faulty) Interrupted(channels ...string) { f.handler.Interrupted(channels...) }
func (f *faulty) Health(err error)               { f.handler.Health(err) }

// cut lets nothing through any more.
func (f *faulty) cut() {
	f.mu.Lock()
	f.down = true
	f.mu.Unlock()
	f.handler.Health(broker.ErrUnavailable)
}

// mend lets everything through again.
func (f *faulty) mend() {
	f.mu.Lock()
	f.down = false
	f.mu.Unlock()
	f.handler.Interrupted()
	f.handler.Health(nil)
}

// losing sets which messages are lost; nil: none.
func (f *faulty) losing(which func(broker.Message) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lose = which
}

// made returns how often a call was made.
func (f *faulty) made(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call]
}

func (f *faulty) call(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = make(map[string]int)
	}
	f.calls[name]++
	if f.down {
		return broker.ErrUnavailable
	}
	return nil
}

func (f *faulty) Subscribe(ctx context.Context, channels ...string) error {
	if err := f.call("Subscribe"); err != nil {
		return err
	}
	return f.Keeper.Subscribe(ctx, channels...)
}

func (f *faulty) Unsubscribe(ctx context.Context, channels ...string) error {
	if err := f.call("Unsubscribe"); err != nil {
		return err
	}
	return f.Keeper.Unsubscribe(ctx, channels...)
}

func (f *faulty) Publish(ctx context.Context, channel string, payload []byte) error {
	if err := f.call("Publish"); err != nil {
		return err
	}
	return f.Keeper.Publish(ctx, channel, payload)
}

func (f *faulty) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	if err := f.call("Store"); err != nil {
		return broker.Position{}, err
	}
	return f.Keeper.Store(ctx, channel, payload)
}

func (f *faulty) Kept(ctx context.Context, channel string) (broker.Kept, error) {
	if err := f.call("Kept"); err != nil {
		return broker.Kept{}, err
	}
	return f.Keeper.Kept(ctx, channel)
}

// member is one node of a cluster within a test.
type member struct {
	*Manager
	link *faulty
}

// inCluster calls fn in a bubble of synthetic time with the nodes of a new cluster, which know each other.
func inCluster(t *testing.T, nodes int, opt Options, fn func(t *testing.T, hub *broker.Memory, nodes []member)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{})
		all := make([]member, nodes)
		for i := range all {
			all[i] = openMember(t, hub, opt)
		}
		<-time.After(2 * time.Second) // they say hello
		fn(t, hub, all)
	})
}

func openMember(t *testing.T, hub *broker.Memory, opt Options) member {
	t.Helper()
	link := &faulty{Keeper: hub.Node()}
	opt.Broker = link
	m := member{open(t, opt), link}
	synctest.Wait()
	return m
}

// follower is a connection of a user of its own that follows an upload on shoal.v1.
func (m member) follower(t *testing.T, user, upload string) *fakeConn {
	t.Helper()
	c := connect(t, m.Manager, user)
	must(t, m.SubscribeConn(t.Context(), user, c, upload, SubscribeOptions{Acknowledge: true}))
	return c
}

package manager

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// faulty is a node's broker whose link can be cut and can lose messages.
type faulty struct {
	broker.HistoryBroker

	mu      sync.Mutex // protects the fields below
	handler broker.Handler
	down    bool                      // no message passes, and every call fails
	bare    bool                      // messages do not name their epoch
	lose    func(broker.Message) bool // which messages are lost on their way here
	refused string                    // a channel that nobody may subscribe to
	// unreadable is a channel whose stored messages cannot be read.
	unreadable string
	calls      map[string]int // how often each call was made
	newests    int            // how many of the reads were of the newest message alone

	// before is called before each call, after behind each call that the hub executed; the call fails with the error
	// that they return. They may block.
	before, after func(ctx context.Context, call string) error
	// keeps transforms the hub's snapshots before the node receives them.
	keeps func(broker.Snapshot) broker.Snapshot

	waiting atomic.Int64 // calls that were stopped
}

func newLink(hub *broker.Memory) *faulty {
	return &faulty{HistoryBroker: hub.Node(), calls: make(map[string]int)}
}

func (f *faulty) Run(ctx context.Context, h broker.Handler) error {
	f.mu.Lock()
	f.handler = h
	f.mu.Unlock()
	return f.HistoryBroker.Run(ctx, f)
}

func (f *faulty) Receive(m broker.Message) {
	f.mu.Lock()
	lost := f.down || f.lose != nil && f.lose(m)
	if f.bare && m.Payload != nil {
		m.Epoch = ""
	}
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

// anonymize removes the epochs from the messages that arrive from now on.
func (f *faulty) anonymize() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bare = true
}

// made returns how often a call was made.
func (f *faulty) made(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call]
}

// meddle sets the hooks before and after each call; nil removes a hook.
func (f *faulty) meddle(before, after func(ctx context.Context, call string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

// keeping sets the transformation of the hub's snapshots; nil removes it.
func (f *faulty) keeping(keeps func(broker.Snapshot) broker.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keeps = keeps
}

// stop lets calls of one name wait before they reach the hub, until release is called or their context ends.
func (f *faulty) stop(name string) (release func()) {
	hook, release := f.barrier(name)
	f.meddle(hook, nil)
	return release
}

// delay lets the answers of one call wait until release is called or their context ends.
func (f *faulty) delay(name string) (release func()) {
	hook, release := f.barrier(name)
	f.meddle(nil, hook)
	return release
}

func (f *faulty) barrier(name string) (hook func(context.Context, string) error, release func()) {
	goOn := make(chan struct{})
	hook = func(ctx context.Context, call string) error {
		if call != name {
			return nil
		}
		f.waiting.Add(1)
		defer f.waiting.Add(-1)
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return hook, sync.OnceFunc(func() { close(goOn) })
}

// stopped returns how many calls wait.
func (f *faulty) stopped() int { return int(f.waiting.Load()) }

// errWrongType is the refusal to read an unreadable channel.
var errWrongType = errors.New("WRONGTYPE operation against a key holding the wrong kind of value")

// call makes a call of the hub.
func (f *faulty) call(ctx context.Context, name string, carryOut func() error) error {
	f.mu.Lock()
	f.calls[name]++
	down, before, after := f.down, f.before, f.after
	f.mu.Unlock()
	if down {
		return broker.ErrUnavailable
	}
	if before != nil {
		if err := before(ctx, name); err != nil {
			return err
		}
	}
	err := carryOut()
	if err == nil && after != nil {
		err = after(ctx, name)
	}
	return err
}

// refuse makes the broker refuse subscriptions of a channel.
func (f *faulty) refuse(channel string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = channel
}

// damage makes the stored messages of a channel unreadable, or of all that a prefix followed by "*" matches; "": of none.
func (f *faulty) damage(channel string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unreadable = channel
}

// checkReadable returns the refusal of the broker if one of the channels is unreadable.
func (f *faulty) checkReadable(channels ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	prefix, isPrefix := strings.CutSuffix(f.unreadable, "*")
	for _, channel := range channels {
		if channel == f.unreadable || isPrefix && strings.HasPrefix(channel, prefix) {
			return errWrongType
		}
	}
	return nil
}

func (f *faulty) Subscribe(ctx context.Context, channels ...string) error {
	f.mu.Lock()
	refused := f.refused
	f.mu.Unlock()
	if refused != "" && slices.Contains(channels, refused) {
		return errNoPermission
	}
	return f.call(ctx, "Subscribe", func() error { return f.HistoryBroker.Subscribe(ctx, channels...) })
}

func (f *faulty) Unsubscribe(ctx context.Context, channels ...string) error {
	return f.call(ctx, "Unsubscribe", func() error { return f.HistoryBroker.Unsubscribe(ctx, channels...) })
}

func (f *faulty) Publish(ctx context.Context, channel string, payload []byte) error {
	return f.call(ctx, "Publish", func() error { return f.HistoryBroker.Publish(ctx, channel, payload) })
}

func (f *faulty) Store(ctx context.Context, channel string, payload []byte) (pos broker.Position, err error) {
	err = f.call(ctx, "Store", func() (err error) {
		pos, err = f.HistoryBroker.Store(ctx, channel, payload)
		return err
	})
	return pos, err
}

func (f *faulty) History(ctx context.Context, channel string, since broker.Position) (kept broker.Snapshot, err error) {
	err = f.call(ctx, "Kept", func() (err error) {
		if err := f.checkReadable(channel); err != nil {
			return err
		}
		kept, err = f.HistoryBroker.History(ctx, channel, since)
		return err
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && f.keeps != nil {
		kept = f.keeps(kept).Since(since)
	}
	return kept, err
}

// Newest counts as a read of the kept messages, too.
func (f *faulty) Newest(ctx context.Context, channel string) (broker.Snapshot, error) {
	f.mu.Lock()
	f.newests++
	f.mu.Unlock()
	kept, err := f.History(ctx, channel, broker.Position{})
	return kept.Newest(), err
}

func (f *faulty) Positions(ctx context.Context, channels ...string) (positions []broker.Position, err error) {
	err = f.call(ctx, "Positions", func() (err error) {
		if err := f.checkReadable(channels...); err != nil {
			return err
		}
		positions, err = f.HistoryBroker.Positions(ctx, channels...)
		return err
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range positions {
		if f.keeps != nil {
			positions[i] = f.keeps(broker.Snapshot{Position: positions[i]}).Position
		}
	}
	return positions, err
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
		<-time.After(2500 * time.Millisecond) // they say hello, and it is some time until they do so again
		fn(t, hub, all)
	})
}

func openMember(t *testing.T, hub *broker.Memory, opt Options) member {
	t.Helper()
	link := newLink(hub)
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

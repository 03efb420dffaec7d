// Package brokertest is the suite that every broker.HistoryBroker passes: Run tries the clauses of its contract, Faults
// the fate of messages while the engine is killed, paused, cut off and slowed.
//
// Follower is how a node uses a HistoryBroker so that it misses nothing, or knows that it did. It is written to be
// read.
package brokertest

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// Config configures the suite.
type Config struct {
	// Node returns a fresh node, not yet running. All of them share one engine, which keeps Messages messages
	// of a channel, for so long that none expires while the suite runs: an hour, say.
	Node func(t testing.TB) broker.HistoryBroker
	// Expiring is like Node, of an engine (or a part of the same engine) that keeps a message for TTL.
	Expiring func(t testing.TB) broker.HistoryBroker
	// Messages is how many messages of a channel are stored. At least 16.
	Messages int
	// TTL is how long the nodes of Expiring keep a message. The suite waits that long, so it had better be short.
	TTL time.Duration
	// Patience is how long to wait for an expected event, and for a call to return. 0: 20 seconds.
	Patience time.Duration
}

// Run tries all clauses of the contract, each as a subtest; those about keys if the broker is an IdempotentBroker. It
// takes real time and waits for conditions only, so that it runs against real servers. Channels have new names each
// time, except for the awkward names.
func Run(t *testing.T, c Config) {
	t.Helper()
	for _, clause := range clauses() {
		t.Run(clause.name, func(t *testing.T) { clause.try(newSuite(t, c)) })
	}
}

// clause is one promise of a broker.
type clause struct {
	name string
	try  func(*suite)
}

func clauses() []clause {
	return []clause{
		{"a message reaches every subscribed node and no other", reachesSubscribers},
		{"a publisher's messages stay in order", publisherOrder},
		{"stored messages come in one order to all", storedOrder},
		{"calls for one channel do not overlap", noOverlap},
		{"subscribe is effective when it returns", subscribeEffective},
		{"subscribe after unsubscribe is effective too", resubscribe},
		{"subscribing twice delivers once", subscribeTwice},
		{"unsubscribe ends delivery", unsubscribeEnds},
		{"thousands of channels come and go", thousands},
		{"awkward names are stored apart", namesKeptApart},
		{"payloads are unchanged", payloadsUnchanged},
		{"a payload belongs to its receiver", payloadOwned},
		{"a trace context travels beside the payload", traceTravels},
		{"an empty channel has an epoch", emptyChannel},
		{"what is stored is what was stored", historyAgrees},
		{"subscribe and then stored make one history", mergeLosesNothing},
		{"history goes on after a position", historySince},
		{"positions come in the order of the channels", positionsInOrder},
		{"reading an unused channel changes nothing", readOnly},
		{"messages say when they were stored", storedTimes},
		{"forget begins a new epoch", forgetBegins},
		{"messages expire", messagesExpire},
		{"a channel without messages stays where it is", positionStays},
		{"a message with a key is stored once", storedOnce},
		{"a key stands for one content", keyReused},
		{"of concurrent calls with a key one stores", concurrentOnce},
		{"keys expire", keysExpire},
		{"run ends with its context and leaves nothing", runEnds},
		{"a node that does not run is out of reach", notRunning},
		{"a cancelled call says so and does nothing", cancelledCall},
	}
}

// suite is the state of one clause's test. Its methods may be called from any number of goroutines; methods that wait
// for something end the test when it does not come, and so belong to the test's own goroutine.
type suite struct {
	testing.TB
	Config
	prefix string
}

func newSuite(t testing.TB, c Config) *suite {
	c.Patience = cmp.Or(c.Patience, 20*time.Second)
	return &suite{TB: t, Config: c, prefix: rand.Text()[:8]}
}

// channel returns a channel's name that no other clause uses.
func (s *suite) channel(name string) string { return "upload:" + s.prefix + "-" + name }

// channels returns several of them.
func (s *suite) channels(name string, count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = s.channel(fmt.Sprintf("%s-%d", name, i))
	}
	return names
}

// node is a running node with its received messages.
type node struct {
	broker.HistoryBroker
	*Recorder
	stop func()
}

// join makes a node and returns when it is connected. It ends with the test at the latest.
func (s *suite) join() *node {
	s.Helper()
	return s.connect(s.Node(s.TB), NewRecorder())
}

// connect runs a node and returns when it is connected.
func (s *suite) connect(b broker.HistoryBroker, r *Recorder) *node {
	s.Helper()
	s.Cleanup(func() {
		r.read(func() {
			if r.overlapped != "" {
				s.Errorf("Receive was called for %q while it was running for the same channel", r.overlapped)
			}
		})
	})
	n := &node{HistoryBroker: b, Recorder: r, stop: s.runs(func(ctx context.Context) error { return b.Run(ctx, r) })}
	s.await(&r.observable, "Health(nil), which Run calls when it has connected", r.Healthy)
	return n
}

// runs calls the Run of a node. It returns a function that ends the run and waits for it, and may be called again.
func (s *suite) runs(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				s.Errorf("Run returned %v, want nil", err)
			}
		case <-time.After(s.Patience):
			s.Errorf("Run has not returned %v after its context ended", s.Patience)
		}
	})
	s.Cleanup(stop)
	return stop
}

// call calls a method with a context that ends when patience does.
func (s *suite) call(name string, method func(context.Context) error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), s.Patience)
	defer cancel()
	if err := method(ctx); err != nil {
		s.Errorf("%s returned %v, want nil", name, err)
	}
}

func (s *suite) subscribe(n *node, channels ...string) {
	s.Helper()
	s.call("Subscribe", func(ctx context.Context) error { return n.Subscribe(ctx, channels...) })
}

func (s *suite) unsubscribe(n *node, channels ...string) {
	s.Helper()
	s.call("Unsubscribe", func(ctx context.Context) error { return n.Unsubscribe(ctx, channels...) })
}

// publish publishes a message, and changes its bytes afterwards as a publisher may.
func (s *suite) publish(n *node, channel, payload string) {
	s.Helper()
	ours := []byte(payload)
	s.call("Publish", func(ctx context.Context) error { return n.Publish(ctx, channel, ours) })
	clear(ours)
}

// store stores a message, and changes its bytes afterwards as a publisher may.
func (s *suite) store(n *node, channel, payload string) (pos broker.Position) {
	s.Helper()
	ours := []byte(payload)
	s.call("Store", func(ctx context.Context) (err error) {
		pos, err = n.Store(ctx, channel, ours)
		return err
	})
	clear(ours)
	return pos
}

func (s *suite) history(n *node, channel string) (k broker.Snapshot) {
	s.Helper()
	s.call("History", func(ctx context.Context) (err error) {
		k, err = n.History(ctx, channel, broker.Position{})
		return err
	})
	return k
}

func (s *suite) forget(n *node, channel string) {
	s.Helper()
	s.call("Forget", func(ctx context.Context) error { return n.Forget(ctx, channel) })
}

// each calls fn with 0 to count-1, all at once, waits, and ends the test if it has failed.
func (s *suite) each(count int, fn func(i int)) {
	var running sync.WaitGroup
	for i := range count {
		running.Go(func() { fn(i) })
	}
	running.Wait()
	if s.Failed() {
		s.FailNow()
	}
}

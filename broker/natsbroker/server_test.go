package natsbroker_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
)

// patience bounds how long a test waits for an event.
const patience = 20 * time.Second

// serve runs a NATS server with JetStream on a free loopback port until the test ends.
func serve(t testing.TB, change ...func(*server.Options)) *server.Server {
	t.Helper()
	opt := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: t.TempDir(),
	}
	for _, c := range change {
		c(opt)
	}
	s, err := server.NewServer(opt)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { stop(s) })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not start")
	}
	return s
}

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// ear is a Handler that records its calls.
type ear struct {
	mu          sync.Mutex
	heard       []broker.Message
	interrupted [][]string
	health      []error
	turned      chan struct{} // closed and replaced at every change
	// gate, if not nil, is waited for with each message.
	gate chan struct{}
}

func newEar() *ear { return &ear{turned: make(chan struct{})} }

func (e *ear) Receive(m broker.Message) {
	if e.gate != nil {
		<-e.gate
	}
	e.change(func() { e.heard = append(e.heard, m) })
}

func (e *ear) Interrupted(channels ...string) {
	e.change(func() { e.interrupted = append(e.interrupted, channels) })
}

func (e *ear) Health(err error) { e.change(func() { e.health = append(e.health, err) }) }

func (e *ear) change(fn func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fn()
	close(e.turned)
	e.turned = make(chan struct{})
}

// await returns when the condition holds, which is called with the lock held.
func (e *ear) await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		e.mu.Lock()
		held, turned := condition(), e.turned
		e.mu.Unlock()
		if held {
			return
		}
		select {
		case <-turned:
		case <-late.C:
			t.Fatalf("after %v still waiting for %s", patience, what)
		}
	}
}

// awaitPayloads returns when these payloads, and no others, have come on a channel; "" is a mark.
func (e *ear) awaitPayloads(t *testing.T, channel string, want ...string) []broker.Message {
	t.Helper()
	var messages []broker.Message
	e.await(t, "the messages", func() bool {
		messages = nil
		var got []string
		for _, m := range e.heard {
			if m.Channel == channel {
				messages, got = append(messages, m), append(got, string(m.Payload))
			}
		}
		return slices.Equal(got, want)
	})
	return messages
}

// awaitHealth returns when the newest news of health is good, or not.
func (e *ear) awaitHealth(t *testing.T, well bool) {
	t.Helper()
	e.await(t, "news of health", func() bool {
		return len(e.health) > 0 && (e.health[len(e.health)-1] == nil) == well
	})
}

// node is a broker that runs.
type node struct {
	*natsbroker.Broker
	*ear
	stop func()
}

// quick are options for a server, with short intervals.
func quick(s *server.Server) natsbroker.Options {
	return natsbroker.Options{URL: s.ClientURL(), ProbeInterval: 200 * time.Millisecond}
}

// join runs a node until the test ends, and returns when it is connected.
func join(t *testing.T, opt natsbroker.Options) *node {
	t.Helper()
	n := start(t, opt, newEar())
	n.awaitHealth(t, true)
	return n
}

func start(t *testing.T, opt natsbroker.Options, e *ear) *node {
	t.Helper()
	b, err := natsbroker.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return &node{b, e, run(t, b, e)}
}

// run runs a broker until the test ends, or until stop is called.
func run(t testing.TB, b *natsbroker.Broker, h broker.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, h) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (n *node) subscribe(t *testing.T, channels ...string) {
	t.Helper()
	if err := n.Subscribe(t.Context(), channels...); err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
}

func (n *node) store(t *testing.T, channel, payload string) uint64 {
	t.Helper()
	pos, err := n.Store(t.Context(), channel, []byte(payload))
	if err != nil {
		t.Fatalf("Store: %v", err)
	}
	return pos.Offset
}

func (n *node) kept(t *testing.T, channel string) broker.Snapshot {
	t.Helper()
	k, err := n.History(t.Context(), channel, broker.Position{})
	if err != nil {
		t.Fatalf("Kept: %v", err)
	}
	return k
}

func (n *node) forget(t *testing.T, channel string) {
	t.Helper()
	if err := n.Forget(t.Context(), channel); err != nil {
		t.Fatalf("Forget: %v", err)
	}
}

// eventually tries again until it works.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-late.C:
			t.Fatalf("%s: after %v still %v", what, patience, err)
		}
	}
}

var errNotYet = errors.New("not yet so")

// onPort makes a server listen where another did.
func onPort(t *testing.T, of *server.Server) func(*server.Options) {
	t.Helper()
	address, ok := of.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal("the server does not listen")
	}
	return func(o *server.Options) { o.Port = address.Port }
}

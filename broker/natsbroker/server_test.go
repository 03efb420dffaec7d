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
	"github.com/shoal-go/shoal/broker/brokertest"
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

// node is a broker that runs.
type node struct {
	*natsbroker.Broker
	*brokertest.Recorder
	stop func()
}

// awaitPayloads returns the messages of a channel when these payloads, and no others, have been received; "" is a new
// epoch.
func (n *node) awaitPayloads(t *testing.T, channel string, want ...string) []broker.Message {
	t.Helper()
	var messages []broker.Message
	n.Await(t, "the messages", func() bool {
		messages = n.Messages(channel)
		return slices.EqualFunc(messages, want, func(m broker.Message, payload string) bool {
			return string(m.Payload) == payload
		})
	})
	return messages
}

// awaitHealth returns when the node is healthy, or not.
func (n *node) awaitHealth(t *testing.T, healthy bool) {
	t.Helper()
	n.Await(t, "a change of health", func() bool {
		return len(n.HealthReports()) > 0 && n.Healthy() == healthy
	})
}

// quick are options for a server, with short intervals.
func quick(s *server.Server) natsbroker.Options {
	return natsbroker.Options{URL: s.ClientURL(), ProbeInterval: 200 * time.Millisecond}
}

// join runs a node until the test ends, and returns when it is connected.
func join(t *testing.T, opt natsbroker.Options) *node {
	t.Helper()
	n := start(t, opt, brokertest.NewRecorder())
	n.awaitHealth(t, true)
	return n
}

func start(t *testing.T, opt natsbroker.Options, r *brokertest.Recorder) *node {
	t.Helper()
	b, err := natsbroker.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return &node{b, r, run(t, b, r)}
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

func (n *node) history(t *testing.T, channel string) broker.Snapshot {
	t.Helper()
	k, err := n.History(t.Context(), channel, broker.Position{})
	if err != nil {
		t.Fatalf("History: %v", err)
	}
	return k
}

func (n *node) forget(t *testing.T, channel string) {
	t.Helper()
	if err := n.Forget(t.Context(), channel); err != nil {
		t.Fatalf("Forget: %v", err)
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

package redisbroker_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, brokertest.LeftByLinks()...) }

// node is a Broker that runs.
type node struct {
	*redisbroker.Broker
	*brokertest.Recorder
	stop func()
}

// join runs a Broker, and returns when it is connected.
func join(t testing.TB, opt redisbroker.Options) *node {
	t.Helper()
	n := start(t, opt)
	n.Await(t, "the connection", n.Healthy)
	return n
}

// start runs a Broker until the test ends.
func start(t testing.TB, opt redisbroker.Options) *node {
	t.Helper()
	b, err := redisbroker.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Broker: b, Recorder: brokertest.NewRecorder()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, n.Recorder) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// options are those for a test with the server.
func options(s *redistest.Server) redisbroker.Options {
	return redisbroker.Options{
		URL: "redis://" + s.Addr, ProbeInterval: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
}

// last returns the payload of the newest message received on a channel, or "".
func (n *node) last(channel string) string { return lastPayload(n.Recorder, channel) }

func lastPayload(r *brokertest.Recorder, channel string) string {
	payloads := r.Payloads(channel)
	if len(payloads) == 0 {
		return ""
	}
	return payloads[len(payloads)-1]
}

func subscribe(t testing.TB, n *node, channels ...string) {
	t.Helper()
	if err := n.Subscribe(t.Context(), channels...); err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
}

func store(t testing.TB, n *node, channel, payload string) broker.Position {
	t.Helper()
	at, err := n.Store(t.Context(), channel, []byte(payload))
	if err != nil {
		t.Fatalf("Store: %v", err)
	}
	return at
}

func history(t testing.TB, n *node, channel string) broker.Snapshot {
	t.Helper()
	k, err := n.History(t.Context(), channel, broker.Position{})
	if err != nil {
		t.Fatalf("History: %v", err)
	}
	return k
}

// describe formats a history, to compare.
func describe(k broker.Snapshot) string {
	text := fmt.Sprintf("%d above %d:", k.Offset, k.Floor)
	for _, m := range k.Messages {
		text += fmt.Sprintf(" %d=%s", m.Offset, m.Payload)
	}
	return text
}

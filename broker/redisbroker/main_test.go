package redisbroker_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
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

// recorder is a Handler that records its calls.
type recorder struct {
	mu           sync.Mutex
	heard        []broker.Message
	interrupted  int
	interruption [][]string
	healths      []error
}

func (e *recorder) Receive(m broker.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, m)
}

func (e *recorder) Interrupted(channels ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.interrupted++
	e.interruption = append(e.interruption, slices.Clone(channels))
}

func (e *recorder) Health(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.healths = append(e.healths, err)
}

// messages returns the received messages of a channel.
func (e *recorder) messages(channel string) []broker.Message {
	e.mu.Lock()
	defer e.mu.Unlock()
	var messages []broker.Message
	for _, m := range e.heard {
		if m.Channel == channel {
			messages = append(messages, m)
		}
	}
	return messages
}

// last returns the payload of the last message received on a channel, or "".
func (e *recorder) last(channel string) string {
	heard := e.messages(channel)
	if len(heard) == 0 {
		return ""
	}
	return string(heard[len(heard)-1].Payload)
}

// interruptions returns how often it was said that something may be lost.
func (e *recorder) interruptions() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.interrupted
}

// health returns the last argument of Health and the number of its calls.
func (e *recorder) health() (err error, calls int) { //nolint:revive,staticcheck // not an error of its own
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.healths) == 0 {
		return nil, 0
	}
	return e.healths[len(e.healths)-1], len(e.healths)
}

// well reports whether Health(nil) was called last.
func (e *recorder) healthy() bool {
	err, calls := e.health()
	return calls > 0 && err == nil
}

// node is a Broker that runs.
type node struct {
	*redisbroker.Broker
	*recorder
	stop func()
}

// join runs a Broker, and returns when it is connected.
func join(t testing.TB, opt redisbroker.Options) *node {
	t.Helper()
	n := start(t, opt)
	redistest.Eventually(t, "the broker is connected", n.healthy)
	return n
}

// start runs a Broker until the test ends.
func start(t testing.TB, opt redisbroker.Options) *node {
	t.Helper()
	b, err := redisbroker.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Broker: b, recorder: new(recorder)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, n.recorder) }()
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
		t.Fatalf("Kept: %v", err)
	}
	return k
}

// show formats a history, to compare.
func describe(k broker.Snapshot) string {
	text := fmt.Sprintf("%d above %d:", k.Offset, k.Floor)
	for _, m := range k.Messages {
		text += fmt.Sprintf(" %d=%s", m.Offset, m.Payload)
	}
	return text
}

package broker_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// run runs a broker with a handler until the test ends.
func run(t *testing.T, b broker.Broker, h broker.Handler) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
}

// Deployments with different prefixes on one engine neither hear nor read each other.
func TestWithPrefix_SeparatesDeployments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{TTL: time.Minute})
		var nodes []broker.IdempotentBroker
		var heard []*ears
		for _, prefix := range []string{"prod", "staging"} {
			b, ok := broker.WithPrefix(hub.Node(), prefix).(broker.IdempotentBroker)
			if !ok {
				t.Fatal("a broker has unlearnt something")
			}
			e := new(ears)
			run(t, b, e)
			if err := b.Subscribe(t.Context(), "upload:a"); err != nil {
				t.Fatal(err)
			}
			nodes, heard = append(nodes, b), append(heard, e)
		}
		ctx := t.Context()
		if _, err := nodes[0].Store(ctx, "upload:a", []byte("1")); err != nil {
			t.Error(err)
		}
		if err := nodes[0].Publish(ctx, "upload:a", []byte("2")); err != nil {
			t.Error(err)
		}
		if _, _, err := nodes[0].StoreOnce(ctx, "upload:a", []byte("3"), broker.Once{Key: "k", Digest: "d"}); err != nil {
			t.Error(err)
		}
		if err := nodes[1].CheckOnce(ctx, "upload:a", broker.Once{Key: "k", Digest: "another"}); err != nil {
			t.Errorf("a key of the other deployment counts: %v", err)
		}
		synctest.Wait()
		var got []string
		for _, m := range heard[0].heard {
			got = append(got, m.Channel+" "+string(m.Payload))
		}
		if want := []string{"upload:a 1", "upload:a 2", "upload:a 3"}; !slices.Equal(got, want) {
			t.Errorf("received %q, want %q", got, want)
		}
		if len(heard[1].heard) != 0 {
			t.Errorf("the other deployment received %d messages", len(heard[1].heard))
		}
		for i, want := range []int{2, 0} {
			s, err := nodes[i].History(ctx, "upload:a", broker.Position{})
			positions, err2 := nodes[i].Positions(ctx, "upload:a")
			newest, err3 := nodes[i].Newest(ctx, "upload:a")
			if err != nil || err2 != nil || err3 != nil || len(s.Messages) != want || positions[0].Offset != s.Offset ||
				newest.Offset != s.Offset {
				t.Errorf("deployment %d holds %d messages, want %d", i, len(s.Messages), want)
			}
		}
		if err := nodes[1].Forget(ctx, "upload:a"); err != nil {
			t.Error(err)
		}
		if s, err := nodes[0].History(ctx, "upload:a", broker.Position{}); err != nil || len(s.Messages) != 2 {
			t.Errorf("the other deployment has dropped the messages: %v", err)
		}
		if err := nodes[0].Unsubscribe(ctx, "upload:a"); err != nil {
			t.Error(err)
		}
	})
}

func TestCheckPrefix_RefusesWhatEnginesInterpret(t *testing.T) {
	for prefix, good := range map[string]bool{
		"staging": true, "Team-1_a": true, "": false, "a.b": false, "a*": false, "a:b": false, "ä": false, "{a}": false,
		strings.Repeat("a", 32): true, strings.Repeat("a", 33): false,
	} {
		if err := broker.CheckPrefix(prefix); (err == nil) != good {
			t.Errorf("%q: %v", prefix, err)
		}
	}
}

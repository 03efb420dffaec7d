package sinks

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every operation is executed, measured and delivered to as many receivers as there are.
func TestService(t *testing.T) {
	m, err := manager.New(manager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(t.Context()) }()
	s := &service{manager: m}
	work := Work{For: 5 * time.Millisecond, Collect: true}
	var connected, subscribed, filled, broadcast, published, churned Cost
	for i, err := range []error{
		s.Connect(Population{Connections: 3000, Uploads: 3, Bytes: 256, Shuffled: true}, &connected),
		s.Subscribe(worker.None{}, &subscribed), s.Fill(worker.None{}, &filled),
		s.Broadcast(work, &broadcast), s.Publish(work, &published), s.Churn(work, &churned),
	} {
		if err != nil {
			t.Errorf("operation %d: %v", i, err)
		}
	}
	if connected.Operations != 3000 || subscribed.Operations != 3000 || filled.Operations != 3 || broadcast.Operations%1000 != 0 {
		t.Errorf("counted are %+v, %+v, %+v, %+v", connected, subscribed, filled, broadcast)
	}
	if connected.Grown < 3000*50 || subscribed.Grown < 3000*50 || subscribed.Heap <= connected.Heap {
		t.Errorf("the heap grew by %d and %d to %d", connected.Grown, subscribed.Grown, subscribed.Heap)
	}
	if published.Operations == 0 || published.Pause <= 0 || published.Pause > published.Collected || churned.Operations == 0 {
		t.Errorf("publishing took %+v, churning %+v", published, churned)
	}
	if n := m.Stats().Subscriptions; n != 3000 {
		t.Errorf("in the end there are %d subscriptions", n)
	}
	sorted := slices.Sorted(slices.Values(s.order()))
	s.Shuffled = false
	if !slices.Equal(sorted, s.order()) {
		t.Error("the shuffled order lacks connections")
	}
}

func TestCost_StopsAtFailures(t *testing.T) {
	broken := errors.New("broken")
	c := &Cost{}
	if c.repeat(Work{For: time.Hour}, func(*rand.Rand) error { return broken }) == nil || c.of(3, func(int) error { return broken }) == nil {
		t.Error("a failure is not reported")
	}
}

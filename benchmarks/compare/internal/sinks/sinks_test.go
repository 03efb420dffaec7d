package sinks

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/manager"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every operation is executed, measured and delivered to as many receivers as there are.
func TestService(t *testing.T) {
	m, err := manager.New(manager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(t.Context()) }()
	p := results.Params{Connections: 3000, Channels: 3, Bytes: 256, Work: results.Shuffled}
	s := &Sinks{manager: m, Timed: results.Timed{Params: p, For: 5 * time.Millisecond}}
	var all []cost
	for i, operation := range []func() (cost, error){
		s.connect, s.subscribe, func() (cost, error) { return costOf(3, s.publish) }, s.broadcasting,
		func() (cost, error) { return s.publishing(true) }, s.churning,
	} {
		c, err := operation()
		if err != nil {
			t.Errorf("operation %d: %v", i, err)
		}
		all = append(all, c)
	}
	connected, subscribed, filled, broadcast, published, churned := all[0], all[1], all[2], all[3], all[4], all[5]
	if connected.operations != 3000 || subscribed.operations != 3000 || filled.operations != 3 || broadcast.operations%1000 != 0 {
		t.Errorf("counted are %+v, %+v, %+v, %+v", connected, subscribed, filled, broadcast)
	}
	if connected.grown < 3000*50 || subscribed.grown < 3000*50 || subscribed.heap <= connected.heap {
		t.Errorf("the heap grew by %d and %d to %d", connected.grown, subscribed.grown, subscribed.heap)
	}
	if published.operations == 0 || published.pause <= 0 || published.pause > published.collected || churned.operations == 0 {
		t.Errorf("publishing took %+v, churning %+v", published, churned)
	}
	if n := m.Stats().Subscriptions; n != 3000 {
		t.Errorf("in the end there are %d subscriptions", n)
	}
	sorted := slices.Sorted(slices.Values(s.order()))
	s.Work = results.Broadcast
	if !slices.Equal(sorted, s.order()) {
		t.Error("the shuffled order lacks connections")
	}
}

func TestCost_StopsAtFailures(t *testing.T) {
	broken := errors.New("broken")
	_, repeated := repeat(time.Hour, false, func(*rand.Rand) error { return broken })
	if _, once := costOf(3, func(int) error { return broken }); repeated == nil || once == nil {
		t.Error("a failure is not reported")
	}
}

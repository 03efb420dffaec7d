package brokertest

import (
	"context"
	"errors"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/broker"
)

// runEnds: Run returns nil when its context ends, and then nothing of the node is left.
func runEnds(s *trial) {
	first := s.join() // the engine may start goroutines that it keeps running
	s.store(first, s.channel("x"), "1")
	first.stop()
	before := goleak.IgnoreCurrent()
	n := s.join()
	all := s.channels("c", 50)
	s.subscribe(n, all...)
	for _, channel := range all {
		s.publish(n, channel, "live")
		s.store(n, channel, "kept")
		s.kept(n, channel)
	}
	s.unsubscribe(n, all[:25]...)
	n.stop()
	if err := goleak.Find(before); err != nil {
		s.Errorf("after Run has returned: %v", err)
	}
	heard := len(n.payloads(all[49]))
	other := s.join()
	s.subscribe(other, all...)
	s.publish(other, all[49], "later")
	s.awaitLast(other, all[49], "later")
	if len(n.payloads(all[49])) > heard {
		s.Errorf("a node was handed a message after its Run had returned")
	}
}

// calls returns the methods that need the engine, by name.
func calls(k broker.HistoryBroker, channel string) map[string]func(context.Context) error {
	methods := map[string]func(context.Context) error{
		"Subscribe": func(ctx context.Context) error { return k.Subscribe(ctx, channel) },
		"Publish":   func(ctx context.Context) error { return k.Publish(ctx, channel, []byte("{}")) },
		"Store": func(ctx context.Context) error {
			_, err := k.Store(ctx, channel, []byte("{}"))
			return err
		},
		"Kept": func(ctx context.Context) error {
			_, err := k.History(ctx, channel, broker.Position{})
			return err
		},
		"Forget": func(ctx context.Context) error { return k.Forget(ctx, channel) },
	}
	if keyed, ok := k.(broker.IdempotentBroker); ok {
		once := broker.Once{Key: "key", Digest: "one"}
		methods["StoreOnce"] = func(ctx context.Context) error {
			_, _, err := keyed.StoreOnce(ctx, channel, []byte("{}"), once)
			return err
		}
		methods["CheckOnce"] = func(ctx context.Context) error { return keyed.CheckOnce(ctx, channel, once) }
	}
	return methods
}

// notRunning: before Run and after it calls return an error that says that the engine is out of reach.
func notRunning(s *trial) {
	k := s.Node(s.TB)
	s.outOfReach(k, "before Run")
	n := s.connect(k, newEar())
	s.call("Publish", func(ctx context.Context) error { return n.Publish(ctx, s.channel("x"), []byte("{}")) })
	n.stop()
	s.outOfReach(k, "after Run")
}

func (s *trial) outOfReach(k broker.HistoryBroker, when string) {
	s.Helper()
	for name, method := range calls(k, s.channel("x")) {
		ctx, cancel := context.WithTimeout(context.Background(), s.Patience/40)
		returned := make(chan error, 1)
		go func() { returned <- method(ctx) }()
		select {
		case err := <-returned:
			if !errors.Is(err, broker.ErrUnavailable) {
				s.Errorf("%s %s returned %v, want it to wrap ErrUnavailable", name, when, err)
			}
		case <-time.After(s.Patience):
			s.Errorf("%s %s has not returned long after its context ended", name, when)
		}
		cancel()
	}
}

// cancelledCall: a call whose context has ended returns its error, and has not subscribed to anything.
func cancelledCall(s *trial) {
	a, b := s.join(), s.join()
	x, y := s.channel("x"), s.channel("y")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for name, method := range calls(a, x) {
		if err := method(ctx); !errors.Is(err, context.Canceled) {
			s.Errorf("%s with a cancelled context returned %v, want it to wrap the context's error", name, err)
		}
	}
	s.awaitSilence(a, b, x)
	s.subscribe(a, y)
	if err := a.Unsubscribe(ctx, y); err != nil && !errors.Is(err, context.Canceled) {
		s.Errorf("Unsubscribe with a cancelled context returned %v, want nil or its error", err)
	}
	s.subscribe(a, y)
	s.publish(b, y, "still of use")
	s.awaitLast(a, y, "still of use")
}

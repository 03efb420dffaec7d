package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/broker"
)

// subscribeEffective: messages published on another node once Subscribe has returned arrive, for many channels
// subscribed at once, one and several at a time.
func subscribeEffective(s *suite) {
	const rounds, callers = 10, 20
	a, b := s.join(), s.join()
	for round := range rounds {
		all := s.channels(fmt.Sprint(round), callers*3)
		s.each(callers, func(i int) {
			own := all[3*i : 3*i+3]
			s.subscribe(a, own[0])
			s.publish(b, own[0], "first")
			s.subscribe(a, own[1:]...)
			s.store(b, own[2], "first")
			s.publish(b, own[1], "first")
		})
		for _, channel := range all {
			s.await(&a.observable, "a message published after Subscribe had returned", func() bool {
				return len(a.withPayload(channel)) > 0
			})
		}
	}
}

// resubscribe: going and coming back at once does not end in being away.
func resubscribe(s *suite) {
	a, b := s.join(), s.join()
	all := s.channels("c", 8)
	s.subscribe(a, all...)
	for round := range 25 {
		payload := fmt.Sprint(round)
		s.each(len(all), func(i int) {
			s.unsubscribe(a, all[i])
			s.subscribe(a, all[i])
			s.publish(b, all[i], payload)
		})
		for _, channel := range all {
			s.awaitLast(a, channel, payload)
		}
	}
}

// subscribeTwice: subscribing again, within a call or by another, changes nothing.
func subscribeTwice(s *suite) {
	a, b := s.join(), s.join()
	x := s.channel("x")
	s.subscribe(a, x, x)
	s.each(4, func(int) { s.subscribe(a, x) })
	want := []string{"1", "2", "3"}
	for _, payload := range want {
		s.publish(b, x, payload)
	}
	s.awaitLast(a, x, "3")
	s.publish(b, x, "end")
	s.awaitLast(a, x, "end")
	if got := a.Payloads(x); !slices.Equal(got, append(want, "end")) {
		s.Errorf("a node that subscribed several times received %q, want each of %q once", got, want)
	}
	s.unsubscribe(a, x)
	s.awaitSilence(a, b, x)
}

// unsubscribeEnds: after Unsubscribe nothing comes any more, shortly, and other channels and nodes are as before.
func unsubscribeEnds(s *suite) {
	a, b := s.join(), s.join()
	x, y, never := s.channel("x"), s.channel("x.y"), s.channel("never")
	s.subscribe(a, x, y)
	s.subscribe(b, x)
	s.unsubscribe(a, x, never)
	s.unsubscribe(a, x)
	s.awaitSilence(a, b, x)
	s.publish(a, x, "still there")
	s.awaitLast(b, x, "still there")
	s.publish(b, y, "still there")
	s.awaitLast(a, y, "still there")
}

// awaitSilence returns when a node receives no more messages that another publishes on a channel. Each silent round
// ends with a message on another channel, which has overtaken nothing.
func (s *suite) awaitSilence(receiver, sender *node, channel string) {
	s.Helper()
	const silentRounds, tries = 5, 200
	fence := s.channel("fence")
	s.subscribe(receiver, fence)
	silent := 0
	for round := range tries {
		before := len(receiver.Payloads(channel))
		s.publish(sender, channel, "not for everybody")
		s.publish(sender, fence, fmt.Sprint(round))
		s.awaitLast(receiver, fence, fmt.Sprint(round))
		if silent++; len(receiver.Payloads(channel)) > before {
			silent = 0
		}
		if silent == silentRounds {
			return
		}
	}
	s.Errorf("a node still receives messages of a channel that it unsubscribed from, after %d messages", tries)
}

// thousands: many channels subscribed and unsubscribed at once, in large and small calls.
func thousands(s *suite) {
	const callers, size, batch = 8, 512, 64
	a, b := s.join(), s.join()
	all := s.channels("c", callers*size)
	s.each(callers, func(i int) {
		own := all[i*size : (i+1)*size]
		for some := range slices.Chunk(own, batch) {
			s.subscribe(a, some...)
		}
		s.unsubscribe(a, own[:size/2]...)
		for _, channel := range own[size/2 : size/2+batch] {
			s.unsubscribe(a, channel)
			s.subscribe(a, channel)
		}
	})
	s.each(callers, func(i int) {
		for _, channel := range all[i*size+size/2 : (i+1)*size] {
			s.publish(b, channel, "for all that stayed")
		}
	})
	for i := range callers {
		for _, channel := range all[i*size+size/2 : (i+1)*size] {
			s.awaitLast(a, channel, "for all that stayed")
		}
		s.awaitSilence(a, b, all[i*size])
	}
}

// runEnds: Run returns nil when its context ends, and then nothing of the node is left.
func runEnds(s *suite) {
	first := s.join() // the engine may start goroutines that it keeps running
	s.store(first, s.channel("x"), "1")
	first.stop()
	before := goleak.IgnoreCurrent()
	n := s.join()
	all := s.channels("c", 50)
	s.subscribe(n, all...)
	for _, channel := range all {
		s.publish(n, channel, "live")
		s.store(n, channel, "stored")
		s.history(n, channel)
	}
	s.unsubscribe(n, all[:25]...)
	n.stop()
	if err := goleak.Find(before); err != nil {
		s.Errorf("after Run has returned: %v", err)
	}
	received := len(n.Payloads(all[49]))
	other := s.join()
	s.subscribe(other, all...)
	s.publish(other, all[49], "later")
	s.awaitLast(other, all[49], "later")
	if len(n.Payloads(all[49])) > received {
		s.Errorf("a node received a message after its Run had returned")
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
		"History": func(ctx context.Context) error {
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
func notRunning(s *suite) {
	k := s.Node(s.TB)
	s.outOfReach(k, "before Run")
	n := s.connect(k, NewRecorder())
	s.call("Publish", func(ctx context.Context) error { return n.Publish(ctx, s.channel("x"), []byte("{}")) })
	n.stop()
	s.outOfReach(k, "after Run")
}

func (s *suite) outOfReach(k broker.HistoryBroker, when string) {
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
func cancelledCall(s *suite) {
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

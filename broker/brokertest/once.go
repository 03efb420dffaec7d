package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// storeOnce stores a message with a key, and changes its bytes afterwards as a publisher may.
func (s *suite) storeOnce(n *node, channel, payload string, once broker.Once) (at broker.Position, replayed bool) {
	s.Helper()
	ours := []byte(payload)
	s.call("StoreOnce", func(ctx context.Context) (err error) {
		at, replayed, err = n.keyed().StoreOnce(ctx, channel, ours, once)
		return err
	})
	clear(ours)
	return at, replayed
}

// checkOnce fails the test unless CheckOnce returns the error.
func (s *suite) checkOnce(n *node, channel string, once broker.Once, want error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), s.Patience)
	defer cancel()
	if err := n.keyed().CheckOnce(ctx, channel, once); !errors.Is(err, want) {
		s.Errorf("CheckOnce returned %v, want %v", err, want)
	}
}

// keyed returns the node's methods about keys, nil if the broker has none.
func (n *node) keyed() broker.IdempotentBroker {
	k, _ := n.HistoryBroker.(broker.IdempotentBroker)
	return k
}

// storedOnce: a key stores one message on its channel, on whichever node it is repeated, also when the message is not
// stored any more and after Forget.
func storedOnce(s *suite) {
	a, b := s.join(), s.join()
	if a.keyed() == nil {
		return
	}
	x, other := s.channel("x"), s.channel("other")
	s.subscribe(b, x, other)
	once := broker.Once{Key: "A-key_1", Digest: "D1"}
	s.checkOnce(b, x, once, nil)
	first, replayed := s.storeOnce(a, x, "first", once)
	if replayed || first.Offset == 0 || first.Epoch == "" || first.Epoch != s.history(b, x).Epoch {
		s.Errorf("a first StoreOnce returned %+v, replayed: %v, want a position of epoch %q",
			first, replayed, s.history(b, x).Epoch)
	}
	again := func(when string) {
		s.Helper()
		for _, n := range []*node{b, a} {
			if at, replayed := s.storeOnce(n, x, "again", once); !replayed || at != first {
				s.Errorf("%s StoreOnce returned %+v, replayed: %v, want %+v again", when, at, replayed, first)
			}
			s.checkOnce(n, x, once, nil)
		}
	}
	again("when the key is repeated")
	s.checkHistory(s.history(a, x), first.Epoch, []storedMessage{{first, "first"}})
	if _, replayed := s.storeOnce(a, other, "on the other", once); replayed {
		s.Errorf("a key of one channel is that of another one")
	}
	at, replayed := s.storeOnce(a, x, "second", broker.Once{Key: "a-key_1", Digest: "D1"})
	if replayed || at.Offset <= first.Offset {
		s.Errorf("another key returned %+v, replayed: %v, want a position after %+v", at, replayed, first)
	}
	for i := range s.Messages + 3 {
		s.store(b, x, fmt.Sprint(i))
	}
	again("when the message is not stored any more")
	s.forget(a, x)
	again("after Forget")
	s.store(a, x, "end")
	s.awaitLast(b, x, "end")
	s.awaitLast(b, other, "on the other")
	if received := b.Payloads(x); received[0] != "first" || received[1] != "second" || slices.Contains(received, "again") {
		s.Errorf("of a message and its repetitions came %q", received)
	}
}

// keyReused: a key that was used with another digest is refused, and nothing is stored.
func keyReused(s *suite) {
	a, b := s.join(), s.join()
	if a.keyed() == nil {
		return
	}
	x := s.channel("x")
	first, _ := s.storeOnce(a, x, "first", broker.Once{Key: "key", Digest: "one"})
	other := broker.Once{Key: "key", Digest: "another"}
	for _, n := range []*node{a, b} {
		ctx, cancel := context.WithTimeout(context.Background(), s.Patience)
		if at, replayed, err := n.keyed().StoreOnce(ctx, x, []byte("other"), other); !errors.Is(err, broker.ErrKeyReused) {
			s.Errorf("StoreOnce with another digest returned %+v, %v, %v, want ErrKeyReused", at, replayed, err)
		}
		cancel()
		s.checkOnce(n, x, other, broker.ErrKeyReused)
		s.checkOnce(n, s.channel("other"), other, nil)
	}
	s.checkHistory(s.history(b, x), first.Epoch, []storedMessage{{first, "first"}})
}

// concurrentOnce: of concurrent calls with one key, on several nodes, one stores, and all return its position.
func concurrentOnce(s *suite) {
	nodes := []*node{s.join(), s.join(), s.join()}
	if nodes[0].keyed() == nil {
		return
	}
	const rounds, callers = 20, 12
	for _, channel := range s.channels("c", rounds) {
		var stored atomic.Int32
		positions := make([]broker.Position, callers)
		s.each(callers, func(i int) {
			at, replayed := s.storeOnce(nodes[i%len(nodes)], channel, "once", broker.Once{Key: "key", Digest: "one"})
			if positions[i] = at; !replayed {
				stored.Add(1)
			}
		})
		snapshot := s.history(nodes[0], channel)
		if stored.Load() != 1 || len(snapshot.Messages) != 1 {
			s.Fatalf("%d of %d concurrent calls stored, %d messages are stored, want 1",
				stored.Load(), callers, len(snapshot.Messages))
		}
		for _, at := range positions {
			if at != snapshot.Position {
				s.Fatalf("concurrent calls returned %+v and %+v, want one position", at, snapshot.Position)
			}
		}
	}
}

// keysExpire: after the time for which messages are stored a key may be used again, with any digest.
func keysExpire(s *suite) {
	n := s.connect(s.Expiring(s.TB), NewRecorder())
	if n.keyed() == nil {
		return
	}
	x := s.channel("x")
	first, _ := s.storeOnce(n, x, "first", broker.Once{Key: "key", Digest: "one"})
	other := broker.Once{Key: "key", Digest: "another"}
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	late := time.NewTimer(s.TTL + s.Patience)
	defer late.Stop()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), s.Patience)
		err := n.keyed().CheckOnce(ctx, x, other)
		cancel()
		if err == nil {
			break
		}
		select {
		case <-again.C:
		case <-late.C:
			s.Fatalf("%v after a key should have expired CheckOnce returns %v", s.Patience, err)
		}
	}
	if at, replayed := s.storeOnce(n, x, "again", other); replayed || at == first {
		s.Errorf("with an expired key StoreOnce returned %+v, replayed: %v, want another position than %+v",
			at, replayed, first)
	}
	stored := s.history(n, x).Messages
	if len(stored) == 0 || string(stored[len(stored)-1].Payload) != "again" {
		s.Errorf("a message with an expired key is not stored: %+v", stored)
	}
}

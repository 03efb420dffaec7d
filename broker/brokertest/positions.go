package brokertest

import (
	"context"
	"fmt"

	"github.com/shoal-go/shoal/broker"
)

// historySince: History returns the messages after a position whose epoch is the present one while all of them are
// stored, otherwise every stored message, and always the newest position.
func historySince(s *suite) {
	a, b := s.join(), s.join()
	x := s.channel("x")
	s.subscribe(a, x)
	s.history(a, x)
	s.store(b, x, "forgotten")
	old := s.history(b, x).Position
	s.forget(b, x)
	var all []storedMessage
	for i := range s.Messages + 5 {
		payload := fmt.Sprint(i)
		all = append(all, storedMessage{s.store(a, x, payload), payload})
	}
	newest := s.history(b, x).Position
	kept := all[len(all)-s.Messages:]
	at := func(i int) broker.Position { return broker.Position{Epoch: newest.Epoch, Offset: all[i].Offset} }
	last := len(all) - 1
	for _, c := range []struct {
		name  string
		since broker.Position
		want  []storedMessage
	}{
		{"the first message, which is dropped", at(0), kept},
		{"the last message that is dropped", at(last - s.Messages), kept},
		{"the oldest message that is stored", at(last - s.Messages + 1), kept[1:]},
		{"the second newest message", at(last - 1), kept[s.Messages-1:]},
		{"the newest message", at(last), nil},
		{"a position that has not been reached", broker.Position{Epoch: newest.Epoch, Offset: newest.Offset + 100}, kept},
		{"a position of an epoch that Forget has ended", old, kept},
		{"an epoch that nobody has had", broker.Position{Epoch: "unknown", Offset: newest.Offset}, kept},
	} {
		for _, n := range []*node{a, b} {
			s.call("History", func(ctx context.Context) error {
				k, err := n.History(ctx, x, c.since)
				if err != nil {
					return err
				}
				s.checkSince(c.name, k, newest, c.want)
				return nil
			})
		}
	}
}

// checkSince fails the test unless a history is at the newest position and has the wanted messages.
func (s *suite) checkSince(name string, k broker.Snapshot, newest broker.Position, want []storedMessage) {
	s.Helper()
	same := len(k.Messages) == len(want) && k.Position == newest
	for i := 0; same && i < len(want); i++ {
		same = k.Messages[i].Offset == want[i].Offset && string(k.Messages[i].Payload) == want[i].payload
	}
	if !same {
		s.Errorf("the history since %s has %d messages and is at %+v, want %d at %+v",
			name, len(k.Messages), k.Position, len(want), newest)
	}
}

// positionsInOrder: Positions returns what History says of each channel, in the order of the arguments, also of
// channels that are named twice, forgotten or unused, and of none.
func positionsInOrder(s *suite) {
	a, b := s.join(), s.join()
	channels := s.channels("c", 20)
	s.subscribe(a, channels...)
	want := make(map[string]broker.Position)
	for i, channel := range channels {
		for range i % 4 {
			s.store(b, channel, "message")
		}
		if i%5 == 0 {
			s.forget(b, channel)
		}
		want[channel] = s.history(a, channel).Position
	}
	asked := append(append([]string{}, channels[10:]...), channels...) // the last ones twice
	for _, n := range []*node{a, b} {
		s.call("Positions", func(ctx context.Context) error {
			if none, err := n.Positions(ctx); err != nil || len(none) > 0 {
				s.Errorf("Positions of no channel returned %v, %v", none, err)
			}
			positions, err := n.Positions(ctx, asked...)
			if err != nil {
				return err
			}
			if len(positions) != len(asked) {
				s.Fatalf("Positions returned %d positions of %d channels", len(positions), len(asked))
			}
			for i, channel := range asked {
				if positions[i] != want[channel] {
					s.Errorf("position %d is %+v, want %+v, as History says", i, positions[i], want[channel])
				}
			}
			return nil
		})
	}
}

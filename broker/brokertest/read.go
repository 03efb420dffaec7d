package brokertest

import (
	"context"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// readOnly: a channel that has neither messages nor subscribers can be read, is empty, and works afterwards like any
// other. An empty epoch is allowed there: a read should leave nothing at the engine.
func readOnly(s *trial) {
	a, b := s.join(), s.join()
	ctx, cancel := context.WithTimeout(context.Background(), s.Patience)
	defer cancel()
	channels := s.channels("unused", 50)
	for _, channel := range channels {
		k := s.kept(a, channel)
		newest, err := b.Newest(ctx, channel)
		if err != nil {
			s.Fatalf("Newest: %v", err)
		}
		if k.Offset+k.Floor+newest.Offset+newest.Floor > 0 || len(k.Messages)+len(newest.Messages) > 0 {
			s.Errorf("of an unused channel are kept %+v and %+v", k, newest)
		}
	}
	positions, err := a.Positions(ctx, channels...)
	if err != nil || len(positions) != len(channels) {
		s.Fatalf("%d positions of %d unused channels, %v", len(positions), len(channels), err)
	}
	x := channels[0]
	s.subscribe(b, x)
	epoch := s.kept(b, x).Epoch
	if epoch == "" {
		s.Fatalf("a channel with a subscriber has no epoch")
	}
	pos := s.store(a, x, "first")
	s.awaitLast(b, x, "first")
	s.checkChain(b, x, epoch)
	s.checkKept(s.kept(a, x), epoch, []said{{pos, "first"}})
}

// storedTimes: a stored message says when it was stored, by the clock of the node that reads it.
func storedTimes(s *trial) {
	const tolerance = 500 * time.Millisecond // between two readings of clocks
	a, b := s.join(), s.join()
	x := s.channel("x")
	before := time.Now()
	s.store(a, x, "first")
	after := time.Now()
	newest, err := b.Newest(context.Background(), x)
	if err != nil {
		s.Fatalf("Newest: %v", err)
	}
	for _, k := range []broker.Snapshot{s.kept(b, x), newest} {
		if len(k.Messages) != 1 {
			s.Fatalf("%d messages are kept, want 1", len(k.Messages))
		}
		if at := k.Messages[0].At; at.Before(before.Add(-tolerance)) || at.After(after.Add(tolerance)) {
			s.Errorf("a message of %v to %v is said to be of %v", before, after, at)
		}
	}
}

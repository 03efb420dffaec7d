package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// emptyChannel: before the first message all nodes agree on an epoch, however many ask first, and that message
// continues it.
func emptyChannel(s *suite) {
	nodes := []*node{s.join(), s.join(), s.join()}
	for _, channel := range s.channels("c", 20) {
		s.subscribe(nodes[0], channel)
		empty := make([]broker.Snapshot, 2*len(nodes))
		s.each(len(empty), func(i int) { empty[i] = s.history(nodes[i%len(nodes)], channel) })
		for _, k := range empty {
			if k.Offset != 0 || k.Floor != 0 || len(k.Messages) != 0 || k.Epoch == "" || k.Epoch != empty[0].Epoch {
				s.Fatalf("of an empty channel is stored %+v, and on another node %+v, want offset 0 of one epoch", k, empty[0])
			}
		}
		pos := s.store(nodes[1], channel, "first")
		s.awaitLast(nodes[0], channel, "first")
		s.checkChain(nodes[0], channel, empty[0].Epoch)
		for _, n := range nodes {
			s.checkHistory(s.history(n, channel), empty[0].Epoch, []storedMessage{{pos, "first"}})
		}
	}
}

// storedMessage is a message that has been stored.
type storedMessage struct {
	broker.Position
	payload string
}

// checkHistory fails the test unless the history agrees with all messages ever stored in the epoch, oldest first.
func (s *suite) checkHistory(k broker.Snapshot, epoch string, all []storedMessage) {
	s.Helper()
	newest := all[len(all)-1]
	if k.Epoch != epoch || k.Offset != newest.Offset {
		s.Errorf("History is at %+v, want offset %d of epoch %q", k.Position, newest.Offset, epoch)
	}
	want := all[max(0, len(all)-s.Messages):]
	if len(k.Messages) != len(want) {
		s.Fatalf("of %d messages %d are stored, want %d", len(all), len(k.Messages), len(want))
	}
	for i, w := range want {
		m := k.Messages[i]
		if m.Offset != w.Offset || string(m.Payload) != w.payload {
			s.Fatalf("%q is stored at offset %d, want %q at %d", m.Payload, m.Offset, w.payload, w.Offset)
		}
		if m.At.IsZero() {
			s.Errorf("a stored message does not say when it was stored")
		}
	}
	for _, m := range all[:len(all)-len(want)] {
		if m.Offset > k.Floor {
			s.Errorf("the floor is %d, but the message at offset %d is not stored any more", k.Floor, m.Offset)
		}
	}
	if k.Floor >= want[0].Offset {
		s.Errorf("the floor is %d, want it below %d, the oldest message that is stored", k.Floor, want[0].Offset)
	}
}

// historyAgrees: while a channel fills, and after it overflows, every node reads the same history, which holds the
// received messages.
func historyAgrees(s *suite) {
	nodes := []*node{s.join(), s.join(), s.join()}
	x := s.channel("x")
	s.subscribe(nodes[0], x)
	epoch := s.history(nodes[2], x).Epoch
	var all []storedMessage
	for i := range 2*s.Messages + 3 {
		payload := fmt.Sprint(i)
		pos := s.store(nodes[i%2], x, payload)
		if pos.Epoch != "" && pos.Epoch != epoch {
			s.Errorf("Store returned epoch %q, want %q, as History says, or none", pos.Epoch, epoch)
		}
		all = append(all, storedMessage{pos, payload})
		s.checkHistory(s.history(nodes[i%3], x), epoch, all)
	}
	s.awaitCount(nodes[0], x, len(all))
	s.checkChain(nodes[0], x, epoch)
	s.await(&nodes[0].observable, "the stored messages", func() bool {
		for i, m := range nodes[0].withPayload(x) {
			if m.Offset != all[i].Offset || string(m.Payload) != all[i].payload {
				s.Errorf("%q came at offset %d, want %q at %d", m.Payload, m.Offset, all[i].payload, all[i].Offset)
			}
		}
		return true
	})
	s.publish(nodes[1], x, "not to be stored")
	s.awaitLast(nodes[0], x, "not to be stored")
	s.checkHistory(s.history(nodes[2], x), epoch, all)
}

// forgetBegins: Forget removes all stored messages and begins a new epoch, which subscribers receive before its first
// message.
func forgetBegins(s *suite) {
	a, b := s.join(), s.join()
	x, other := s.channel("x"), s.channel("other")
	s.subscribe(a, x, other)
	s.subscribe(b, x)
	stays := s.store(b, other, "stays")
	epochs := []string{s.history(b, other).Epoch}
	for round := range 4 {
		for i := range round {
			s.store(a, x, fmt.Sprintf("before %d", i))
		}
		end := fmt.Sprintf("round %d", round)
		s.store(a, x, end)
		s.awaitLast(a, x, end)
		s.awaitLast(b, x, end)
		old := s.history(a, x)
		s.forget([]*node{a, b}[round%2], x)
		fresh := s.history(a, x)
		if again := s.history(b, x); again.Position != fresh.Position {
			s.Errorf("after Forget two nodes return %+v and %+v", fresh.Position, again.Position)
		}
		epochs = append(epochs, old.Epoch)
		if len(fresh.Messages) > 0 || fresh.Epoch == "" || slices.Contains(epochs, fresh.Epoch) {
			s.Errorf("after Forget is stored %+v, want nothing of an epoch other than %q", fresh, epochs)
		}
		first := "first after " + end
		pos := s.store(b, x, first)
		if pos.Offset <= max(fresh.Offset, fresh.Floor) {
			s.Errorf("the first message after Forget is at %d, want it above %+v", pos.Offset, fresh)
		}
		for _, n := range []*node{a, b} {
			s.awaitLast(n, x, first)
			s.checkEpochReported(n, x, end, fresh.Epoch)
			s.checkHistory(s.history(n, x), fresh.Epoch, []storedMessage{{pos, first}})
		}
	}
	s.checkHistory(s.history(a, other), epochs[0], []storedMessage{{stays, "stays"}})
}

// checkEpochReported fails the test unless a node learned of the new epoch after the last message of the old one, and
// no later than with the first of the new one.
func (s *suite) checkEpochReported(n *node, channel, last, epoch string) {
	s.Helper()
	s.await(&n.observable, "the received messages", func() bool {
		received := n.events(channel)
		news := received[1+slices.IndexFunc(received, func(m broker.Message) bool { return string(m.Payload) == last }):]
		if told := news[0].Payload == nil || news[0].Epoch == epoch; !told {
			s.Errorf("after Forget came %+v, want a report of epoch %q before that", news[0], epoch)
		}
		for _, m := range news {
			if m.Epoch != "" && m.Epoch != epoch {
				s.Errorf("after Forget a node received epoch %q, want %q", m.Epoch, epoch)
			}
		}
		return true
	})
}

// messagesExpire: messages expire, a node that missed them can tell, and later offsets are higher.
func messagesExpire(s *suite) {
	a := s.connect(s.Expiring(s.TB), NewRecorder())
	b := s.connect(s.Expiring(s.TB), NewRecorder())
	x := s.channel("x")
	s.subscribe(b, x)
	epoch := s.history(a, x).Epoch
	var last broker.Position
	for i := range 3 {
		last = s.store(a, x, fmt.Sprint(i))
	}
	s.awaitLast(b, x, "2")
	s.checkChain(b, x, epoch)
	gone := s.awaitExpiry(b, x)
	if gone.Epoch == epoch && gone.Floor < last.Offset {
		s.Errorf("the floor is %d, but the message at offset %d has expired", gone.Floor, last.Offset)
	}
	again := s.history(a, x)
	if len(again.Messages) > 0 || again.Position != gone.Position {
		s.Errorf("one node reports %+v, another %+v", gone, again)
	}
	next := s.store(a, x, "next")
	if gone.Epoch == epoch && next.Offset <= last.Offset || next.Offset <= max(gone.Offset, gone.Floor) {
		s.Errorf("after expiry a message is at offset %d, want it above %d and above the result of History, %+v",
			next.Offset, last.Offset, gone)
	}
	s.awaitLast(b, x, "next")
}

// awaitExpiry asks until nothing is stored of a channel any more.
func (s *suite) awaitExpiry(n *node, channel string) broker.Snapshot {
	s.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	late := time.NewTimer(s.TTL + s.Patience)
	defer late.Stop()
	for {
		k := s.history(n, channel)
		if len(k.Messages) == 0 {
			return k
		}
		select {
		case <-again.C:
		case <-late.C:
			s.Fatalf("%d messages are still stored %v after they should have expired", len(k.Messages), s.Patience)
		}
	}
}

// positionStays: while a node is subscribed, a channel without messages stays at offset 0 of its epoch for
// longer than messages are stored, whatever happens on other channels and whichever node asks. Its first message
// continues it.
func positionStays(s *suite) {
	a := s.connect(s.Expiring(s.TB), NewRecorder())
	b := s.connect(s.Expiring(s.TB), NewRecorder())
	silent, other := s.channel("silent"), s.channel("other")
	expire := func() {
		s.store(b, other, "other")
		s.awaitExpiry(b, other)
	}
	expire()
	s.subscribe(a, silent)
	first := s.history(a, silent).Position
	if first.Epoch == "" || first.Offset != 0 {
		s.Fatalf("a channel without messages is at %+v, want offset 0 of an epoch", first)
	}
	const rounds = 3
	for range rounds {
		expire()
		late := s.connect(s.Expiring(s.TB), NewRecorder())
		for _, n := range []*node{a, b, late} {
			s.call("Newest and Positions", func(ctx context.Context) error {
				newest, err := n.Newest(ctx, silent)
				positions, failed := n.Positions(ctx, silent)
				if err = errors.Join(err, failed); err != nil {
					return err
				}
				for _, is := range append(positions, newest.Position, s.history(n, silent).Position) {
					if is != first {
						s.Errorf("a channel without messages is at %+v, want it to stay at %+v", is, first)
					}
				}
				return nil
			})
		}
		late.stop()
	}
	pos := s.store(b, silent, "first")
	s.awaitLast(a, silent, "first")
	s.checkChain(a, silent, first.Epoch)
	s.checkHistory(s.history(a, silent), first.Epoch, []storedMessage{{pos, "first"}})
}

// readOnly: a channel that has neither messages nor subscribers can be read, is empty, and works afterwards like any
// other. An empty epoch is allowed there: a read should leave nothing at the engine.
func readOnly(s *suite) {
	a, b := s.join(), s.join()
	ctx, cancel := context.WithTimeout(context.Background(), s.Patience)
	defer cancel()
	channels := s.channels("unused", 50)
	for _, channel := range channels {
		k := s.history(a, channel)
		newest, err := b.Newest(ctx, channel)
		if err != nil {
			s.Fatalf("Newest: %v", err)
		}
		if k.Offset+k.Floor+newest.Offset+newest.Floor > 0 || len(k.Messages)+len(newest.Messages) > 0 {
			s.Errorf("of an unused channel are stored %+v and %+v", k, newest)
		}
	}
	positions, err := a.Positions(ctx, channels...)
	if err != nil || len(positions) != len(channels) {
		s.Fatalf("%d positions of %d unused channels, %v", len(positions), len(channels), err)
	}
	x := channels[0]
	s.subscribe(b, x)
	epoch := s.history(b, x).Epoch
	if epoch == "" {
		s.Fatalf("a channel with a subscriber has no epoch")
	}
	pos := s.store(a, x, "first")
	s.awaitLast(b, x, "first")
	s.checkChain(b, x, epoch)
	s.checkHistory(s.history(a, x), epoch, []storedMessage{{pos, "first"}})
}

// storedTimes: a stored message says when it was stored, by the clock of the node that reads it.
func storedTimes(s *suite) {
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
	for _, k := range []broker.Snapshot{s.history(b, x), newest} {
		if len(k.Messages) != 1 {
			s.Fatalf("%d messages are stored, want 1", len(k.Messages))
		}
		if at := k.Messages[0].At; at.Before(before.Add(-tolerance)) || at.After(after.Add(tolerance)) {
			s.Errorf("a message of %v to %v is said to be of %v", before, after, at)
		}
	}
}

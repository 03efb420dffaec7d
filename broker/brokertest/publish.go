package brokertest

import (
	"context"
	"fmt"
	"slices"

	"github.com/shoal-go/shoal/broker"
)

// reachesSubscribers: a published message reaches all subscribed nodes, the sender too, once, and no other node.
func reachesSubscribers(s *suite) {
	a, b, stranger := s.join(), s.join(), s.join()
	x, y := s.channel("x"), s.channel("y")
	s.subscribe(a, x)
	s.subscribe(b, x)
	s.subscribe(stranger, y)
	var want []string
	for i := range 50 {
		payload := fmt.Sprint(i)
		want = append(want, payload)
		s.publish([]*node{a, b, stranger}[i%3], x, payload)
	}
	for _, sender := range []*node{a, b, stranger} {
		end := fmt.Sprintf("end of %p", sender)
		s.publish(sender, x, end)
		s.publish(sender, y, end)
		s.awaitCount(a, x, len(want)+1)
		s.awaitCount(b, x, len(want)+1)
		s.awaitLast(stranger, y, end)
		want = append(want, end)
	}
	for _, n := range []*node{a, b} {
		got := n.Payloads(x)
		slices.Sort(got)
		if !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			s.Errorf("a subscribed node received %q, want each of %q once", got, want)
		}
		if unexpected := n.Payloads(y); len(unexpected) > 0 {
			s.Errorf("a node received %q on a channel that it never subscribed to", unexpected)
		}
	}
	if unexpected := stranger.Payloads(x); len(unexpected) > 0 {
		s.Errorf("a node received %q on a channel that it never subscribed to", unexpected)
	}
	s.await(&a.observable, "the published messages", func() bool {
		for _, m := range a.withPayload(x) {
			if m.Position != (broker.Position{}) || m.Prev != 0 {
				s.Errorf("a message that was only published is at %v after %d, want no position", m.Position, m.Prev)
			}
		}
		return true
	})
}

// workload is the messages of several publishers on several channels at once.
type workload struct {
	channels             []string
	publishers, messages int
}

// payload returns the payload of a publisher's message.
func (workload) payload(publisher, message int) string {
	return fmt.Sprintf("%d:%d", publisher, message)
}

// run publishes the workload by send.
func (t workload) run(s *suite, send func(publisher int, channel, payload string)) {
	s.each(t.publishers, func(publisher int) {
		for message := range t.messages {
			for _, channel := range t.channels {
				send(publisher, channel, t.payload(publisher, message))
			}
		}
	})
}

// check fails the test unless a node received all of its messages once, each publisher in order.
func (t workload) check(s *suite, n *node) {
	s.Helper()
	for _, channel := range t.channels {
		s.awaitCount(n, channel, t.publishers*t.messages)
		next := make([]int, t.publishers)
		for _, payload := range n.Payloads(channel) {
			var publisher, message int
			if _, err := fmt.Sscanf(payload, "%d:%d", &publisher, &message); err != nil || publisher >= t.publishers {
				s.Fatalf("a node received %q, which was never published", payload)
			}
			if message != next[publisher] {
				s.Fatalf("a node received message %d of a publisher where %d is next", message, next[publisher])
			}
			next[publisher]++
		}
	}
}

// publisherOrder: the messages of one publisher on a channel arrive in order, regardless of others.
func publisherOrder(s *suite) {
	nodes := []*node{s.join(), s.join(), s.join()}
	t := workload{channels: s.channels("c", 10), publishers: 4, messages: 50}
	for _, n := range nodes[:2] {
		s.subscribe(n, t.channels...)
	}
	t.run(s, func(publisher int, channel, payload string) { s.publish(nodes[publisher%3], channel, payload) })
	for _, n := range nodes[:2] {
		t.check(s, n)
	}
}

// storedOrder: stored messages reach all nodes in the order of their offsets, each naming the one before.
func storedOrder(s *suite) {
	nodes := []*node{s.join(), s.join(), s.join()}
	t := workload{channels: s.channels("c", 4), publishers: 4, messages: 50}
	for _, n := range nodes[:2] {
		s.subscribe(n, t.channels...)
	}
	t.run(s, func(publisher int, channel, payload string) {
		if pos := s.store(nodes[publisher%3], channel, payload); pos.Offset == 0 {
			s.Errorf("Store returned offset 0, want one above it")
		}
	})
	for _, n := range nodes[:2] {
		t.check(s, n)
		for _, channel := range t.channels {
			s.checkChain(n, channel, s.history(n, channel).Epoch)
		}
	}
	for _, channel := range t.channels {
		if !slices.Equal(nodes[0].Payloads(channel), nodes[1].Payloads(channel)) {
			s.Errorf("two nodes received the same stored messages in different orders")
		}
	}
}

// checkChain fails the test unless a node received one unbroken run of stored messages on a channel.
func (s *suite) checkChain(n *node, channel, epoch string) {
	s.Helper()
	s.await(&n.observable, "the stored messages", func() bool {
		var last uint64
		for _, m := range n.withPayload(channel) {
			if m.Offset <= last {
				s.Errorf("a node received offset %d after %d, want it above", m.Offset, last)
			}
			if m.Prev != last {
				s.Errorf("the message at offset %d says that %d is before it, want %d", m.Offset, m.Prev, last)
			}
			if m.Epoch != "" && m.Epoch != epoch {
				s.Errorf("a message is of epoch %q, want %q, as History says, or none", m.Epoch, epoch)
			}
			last = m.Offset
		}
		return true
	})
}

// noOverlap: Receive is not called for a channel while it runs for it. All clauses check that; this one provokes it.
func noOverlap(s *suite) {
	nodes := []*node{s.join(), s.join()}
	t := workload{channels: s.channels("c", 1), publishers: 8, messages: 100}
	for _, n := range nodes {
		s.subscribe(n, t.channels...)
	}
	t.run(s, func(publisher int, channel, payload string) {
		if n := nodes[publisher/2%2]; publisher%2 == 0 {
			s.publish(n, channel, payload)
		} else {
			s.store(n, channel, payload)
		}
	})
	for _, n := range nodes {
		t.check(s, n)
	}
}

// traceTravels: a trace context reaches all nodes with its own message and no other, and changes neither payload nor
// position. One of another length is left out.
func traceTravels(s *suite) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	a, b := s.join(), s.join()
	c := s.channel("c")
	s.subscribe(a, c)
	s.subscribe(b, c)
	want := map[string]string{"before": "", "traced": trace, "between": "", "too long": "", "last": ""}
	at := map[string]broker.Position{"before": s.store(a, c, "before")}
	at["traced"] = s.storeTraced(a, c, "traced", trace)
	at["between"] = s.store(b, c, "between")
	at["too long"] = s.storeTraced(b, c, "too long", trace+"-x")
	if a.keyed() != nil {
		want["once"] = trace
		s.call("StoreOnce", func(ctx context.Context) (err error) {
			ctx = broker.WithTrace(ctx, trace)
			at["once"], _, err = a.keyed().StoreOnce(ctx, c, []byte("once"), broker.Once{Key: "key", Digest: "once"})
			return err
		})
	}
	at["last"] = s.store(b, c, "last")
	for _, n := range []*node{a, b} {
		s.awaitCount(n, c, len(want))
		for _, m := range n.withPayload(c) {
			payload := string(m.Payload)
			if expected, known := want[payload]; !known || m.Trace != expected {
				s.Errorf("%q came with the trace context %q, want %q", payload, m.Trace, expected)
			}
			if m.Offset != at[payload].Offset {
				s.Errorf("%q came at offset %d, want %d", payload, m.Offset, at[payload].Offset)
			}
		}
	}
	for _, m := range s.history(a, c).Messages {
		if _, known := want[string(m.Payload)]; !known {
			s.Errorf("%q is stored, which was never published", m.Payload)
		}
	}
}

// storeTraced is store with a trace context.
func (s *suite) storeTraced(n *node, channel, payload, trace string) (pos broker.Position) {
	s.Helper()
	s.call("Store", func(ctx context.Context) (err error) {
		pos, err = n.Store(broker.WithTrace(ctx, trace), channel, []byte(payload))
		return err
	})
	return pos
}

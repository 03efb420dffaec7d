package outbox

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/frame"
)

// A ready list behaves like a slice under any sequence of operations at both ends, and releases dequeued outboxes.
func TestWriter_ReadyListBehavesLikeASlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWriter()
		var list []*Outbox
		hand := make([]*Outbox, rapid.IntRange(1, dequeueBatch).Draw(t, "hand"))
		t.Repeat(map[string]func(*rapid.T){
			"add": func(*rapid.T) {
				o := &Outbox{}
				w.enqueue(o)
				list = append(list, o)
			},
			"take first": func(t *rapid.T) {
				n, left := w.dequeue(hand)
				if want := min(len(hand), len(list)); n != want || left != len(list)-n || !slices.Equal(hand[:n], list[:n]) {
					t.Fatalf("%d are taken and %d left, want %d of %d, the first", n, left, want, len(list))
				}
				list = list[n:]
			},
			"take last": func(t *rapid.T) {
				n := w.giveAway(hand)
				rest := len(list) - n
				if want := len(hand); n != 0 && n != want || (n == want) != (len(list) >= 2*want) {
					t.Fatalf("%d are taken of %d, want %d if as many are left", n, len(list), want)
				}
				if !slices.Equal(hand[:n], list[rest:]) {
					t.Fatal("others are taken than the last")
				}
				list = list[:rest]
			},
			"": func(t *rapid.T) {
				if !slices.Equal(w.ready[w.head:], list) {
					t.Fatalf("%d are on the list, want %d in their order", len(w.ready)-w.head, len(list))
				}
				held := slices.DeleteFunc(slices.Clone(w.ready[:cap(w.ready)]), func(o *Outbox) bool { return o == nil })
				if len(held) != len(list) {
					t.Fatalf("%d outboxes are held, want %d", len(held), len(list))
				}
			},
		})
	})
}

// A writer at the end of a long ready list steals from a blocked one.
func TestWriter_StealsFromBlockedWriter(t *testing.T) {
	const many = 100
	p := NewPool(Options{Writers: 2})
	defer p.Close()
	// own opens connections of one writer: the first holds the writer up until it may proceed.
	own := func(w *writer) (boxes []*Outbox, begun, proceed chan struct{}) {
		begun, proceed = make(chan struct{}), make(chan struct{})
		hold := func() { close(begun); <-proceed }
		for len(boxes) < many+1 {
			trace := hold
			if len(boxes) > 0 {
				trace = func() {}
			}
			if o := openRaw(p, tracedConn{newNullConn(t), trace}, Config{}); o.writer == w {
				boxes = append(boxes, o)
			} else {
				o.Abort()
			}
		}
		return boxes, begun, proceed
	}
	fill := func(boxes []*Outbox, begun chan struct{}) {
		send(t, boxes[0], Queued, data("a", frame.Event, 1, 0))
		<-begun
		for _, o := range boxes[1:] {
			send(t, o, Queued, data("a", frame.Event, 1, 0))
		}
	}
	stuck, stuckBegun, letGo := own(p.writers[0])
	free, freeBegun, proceed := own(p.writers[1])
	fill(stuck, stuckBegun)
	fill(free, freeBegun)
	close(proceed)

	left := many
	for left >= 2*dequeueBatch {
		left -= dequeueBatch
	}
	eventually(t, "all that may be taken over is written", func() bool {
		return p.Stats().Frames == uint64(len(free)+many-left)
	})
	close(letGo)
	eventually(t, "all is written", func() bool { return p.Stats().Frames == uint64(len(free)+len(stuck)) })
}

package outbox

import (
	"slices"
	"sync"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/frame"
)

// A queue behaves like a slice under any sequence of operations: it keeps the order, counts queued and dequeued frames
// until they are credited, and releases all others.
func TestQueue_BehavesLikeASlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			l       queue
			chunks  sync.Pool
			waiting []*frame.Frame
			taken   []queuedFrame
			held    amount
		)
		take := func() {
			taken = append(taken, *l.first())
			l.pop(&chunks)
			waiting = waiting[1:]
		}
		// settle ends the owner's turn: the first n dequeued frames are written, the others are requeued.
		settle := func(n int) {
			for _, e := range taken {
				l.unwritten.subtract(amount{1, e.frame.Size()})
			}
			l.pushFront(&chunks, taken[n:])
			for _, e := range taken[:n] {
				held.subtract(amount{1, e.frame.Size()})
			}
			for _, e := range slices.Backward(taken[n:]) {
				waiting = slices.Insert(waiting, 0, e.frame)
			}
			taken = nil
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				f := data("a", frame.Event, len(waiting), rapid.IntRange(0, 50).Draw(t, "pad"))
				if place := l.push(&chunks, queuedFrame{frame: f}); place.frame != f {
					t.Fatal("push returns another place than that of what was pushed")
				}
				waiting = append(waiting, f)
				held.add(f)
			},
			"take": func(*rapid.T) {
				if len(waiting) > 0 {
					take()
				}
			},
			"take all": func(*rapid.T) {
				taken = l.popAll(taken, &chunks)
				waiting = nil
			},
			"remove": func(t *rapid.T) {
				if len(waiting) == 0 {
					return
				}
				n := rapid.IntRange(0, len(waiting)-1).Draw(t, "index")
				for e := range l.all() {
					if e.frame == waiting[n] {
						held.subtract(amount{1, e.frame.Size()})
						l.remove(e, &chunks)
						break
					}
				}
				waiting = slices.Delete(waiting, n, n+1)
				if l.sparse() {
					l.compact(&chunks)
				}
			},
			"settle": func(t *rapid.T) { settle(rapid.IntRange(0, len(taken)).Draw(t, "written")) },
			"": func(t *rapid.T) {
				var got []*frame.Frame
				for e := range l.all() {
					got = append(got, e.frame)
				}
				if !slices.Equal(got, waiting) || l.empty() != (len(waiting) == 0) {
					t.Fatalf("%d frames wait, want %d in their order", len(got), len(waiting))
				}
				if l.head != nil && int(l.head.removed) > max(2*chunkLen, len(waiting)+len(taken)) {
					t.Fatalf("%d removed entries occupy the queue, beside %d frames", l.head.removed, len(waiting))
				}
				if l.unwritten != held {
					t.Fatalf("%+v is held, want %+v", l.unwritten, held)
				}
			},
		})
		settle(len(taken))
		for len(waiting) > 0 {
			take()
		}
		settle(len(taken))
		if l != (queue{}) {
			t.Fatalf("an empty lane still holds something: %+v", l)
		}
	})
}

func TestOutbox_MemoryLayout(t *testing.T) {
	if got := unsafe.Sizeof(Outbox{}); got > 240 {
		t.Errorf("an outbox has %d bytes, want 240 at most: there is one for each idle connection", got)
	}
	if got := unsafe.Sizeof(chunk{}); got != 256 {
		t.Errorf("a chunk has %d bytes, want 256: more would take the next size class", got)
	}
	if got := unsafe.Sizeof(counters{}); got%cacheLine != 0 {
		t.Errorf("counters have %d bytes, want a whole number of cache lines", got)
	}
}

func TestQueue_ReleasesDequeuedFrames(t *testing.T) {
	p := NewPool(Options{})
	defer p.Close()
	var l queue
	for range 2 {
		l.push(&p.chunks, queuedFrame{frame: control(frame.Ping, "")})
	}
	c := l.head
	l.pop(&p.chunks)
	l.pop(&p.chunks)
	if l.inline != (queuedFrame{}) {
		t.Error("the entry that stood alone is still held")
	}
	if *c != (chunk{}) {
		t.Error("a chunk given back still holds something")
	}
}

func TestPool_ReleasesEndedOutboxes(t *testing.T) {
	p := NewPool(Options{Writers: 1})
	defer p.Close()
	var boxes []*Outbox
	for range 3 {
		boxes = append(boxes, openRaw(p, newNullConn(t), Config{}))
	}
	for _, i := range []int{1, 2, 0} {
		boxes[i].Abort()
		<-boxes[i].Done()
		for o := p.writers[0].open; o != nil; o = o.nextOpen {
			if o == boxes[i] {
				t.Errorf("outbox %d is still linked", i)
			}
		}
	}
	if p.writers[0].open != nil {
		t.Error("something is still linked")
	}
}

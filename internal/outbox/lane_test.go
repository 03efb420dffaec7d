package outbox

import (
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/frame"
)

// A lane does as a slice does, whatever is put in, taken out and put back: it keeps the order, it counts what
// waits and what has been taken until that is settled, and it lets go of all else.
func TestALaneDoesAsASliceDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			l       lane
			chunks  sync.Pool
			waiting []*frame.Frame
			taken   []entry
			held    tally
		)
		take := func() {
			taken = append(taken, *l.first())
			l.pop(&chunks)
			waiting = waiting[1:]
		}
		// settle ends the owner's turn: the first n of what was taken are written, the others come back.
		settle := func(n int) {
			for _, e := range taken {
				l.held.subtract(tally{1, e.frame.Size()})
			}
			l.putBack(&chunks, taken[n:])
			for _, e := range taken[:n] {
				held.subtract(tally{1, e.frame.Size()})
			}
			for _, e := range slices.Backward(taken[n:]) {
				waiting = slices.Insert(waiting, 0, e.frame)
			}
			taken = nil
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				f := data("a", frame.Event, len(waiting), rapid.IntRange(0, 50).Draw(t, "pad"))
				if place := l.push(&chunks, entry{frame: f}); place.frame != f {
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
			"settle": func(t *rapid.T) { settle(rapid.IntRange(0, len(taken)).Draw(t, "written")) },
			"": func(t *rapid.T) {
				var got []*frame.Frame
				for e := range l.all() {
					got = append(got, e.frame)
				}
				if !slices.Equal(got, waiting) || l.empty() != (len(waiting) == 0) {
					t.Fatalf("%d frames wait, want %d in their order", len(got), len(waiting))
				}
				if l.held != held {
					t.Fatalf("%+v is held, want %+v", l.held, held)
				}
			},
		})
		settle(len(taken))
		for len(waiting) > 0 {
			take()
		}
		settle(len(taken))
		if l != (lane{}) {
			t.Fatalf("an empty lane still holds something: %+v", l)
		}
	})
}

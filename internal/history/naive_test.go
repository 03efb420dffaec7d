package history

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// naive is a reference implementation of Log: a plain slice of all messages ever appended, with lost ones marked.
type naive struct {
	entries []naiveEntry
	offset  uint64
	// began is the offset from which on the log continues an epoch.
	began   uint64
	touched time.Time
	// latest is when the newest message came, if it has no offset.
	latest time.Time
}

type naiveEntry struct {
	offset uint64
	size   int
	at     time.Time
	lost   bool
}

func (n *naive) held() (held []*naiveEntry) {
	for i := range n.entries {
		if !n.entries[i].lost {
			held = append(held, &n.entries[i])
		}
	}
	return held
}

// lose marks the oldest as long as there are too many.
func (n *naive) lose(lim Limits) {
	for {
		held, bytes := n.held(), 0
		for _, e := range held {
			bytes += e.size
		}
		if len(held) <= 1 || len(held) <= lim.Messages && bytes <= lim.Bytes {
			return
		}
		held[0].lost = true
	}
}

func (n *naive) expire(now time.Time, ttl time.Duration) {
	for _, e := range n.held() {
		e.lost = now.Sub(e.at) >= ttl
	}
	if now.Sub(n.latest) >= ttl {
		n.latest = time.Time{}
	}
}

func (n *naive) clone() *naive {
	c := *n
	c.entries = slices.Clone(n.entries)
	return &c
}

func (n *naive) since(offset uint64) (after []uint64, complete bool) {
	if offset > n.offset || offset < n.began {
		return nil, false
	}
	for _, e := range n.entries {
		if e.offset > offset {
			if e.lost {
				return nil, false
			}
			after = append(after, e.offset)
		}
	}
	return after, true
}

func TestLog_AgreesWithSlice(t *testing.T) { rapid.Check(t, logOperations) }

// FuzzLog is the same with operations that a fuzzer chooses.
func FuzzLog(f *testing.F) { f.Fuzz(rapid.MakeFuzz(logOperations)) }

func logOperations(t *rapid.T) {
	lim := Limits{
		Messages: rapid.IntRange(1, 9).Draw(t, "messages"),
		Bytes:    rapid.IntRange(1, 60).Draw(t, "bytes"),
		TTL:      time.Duration(rapid.IntRange(1, 20).Draw(t, "ttl")),
	}
	now := start
	began := rapid.Uint64Range(0, 3).Draw(t, "began")
	l, n := Begin[string]("e", began, now), &naive{offset: began, began: began, touched: now}
	if began == 0 {
		l = New[string]("e", now)
	}
	// other is the clone, or the original of the clone, and stood its expected content: it must not change any
	// more.
	other, stood := l.Clone(), n.clone()
	t.Repeat(map[string]func(*rapid.T){
		"append": func(t *rapid.T) {
			n.offset += rapid.Uint64Range(1, 3).Draw(t, "step")
			e := naiveEntry{offset: n.offset, size: rapid.IntRange(0, 20).Draw(t, "size"), at: now}
			n.expire(now, lim.TTL)
			n.entries = append(n.entries, e)
			n.lose(lim)
			n.touched, n.latest = now, time.Time{}
			l.Append(e.offset, "", e.size, now, lim)
		},
		"advance": func(t *rapid.T) {
			offset := rapid.Uint64Range(0, n.offset+3).Draw(t, "offset")
			n.offset = max(n.offset, offset)
			l.Advance(offset)
		},
		"note": func(*rapid.T) {
			n.touched, n.latest = now, now
			l.SetLatest("latest", 5, now)
		},
		"clone": func(t *rapid.T) {
			other, stood = l.Clone(), n.clone()
			if rapid.Bool().Draw(t, "go on with the copy") {
				l, other = other, l
			}
		},
		"wait": func(t *rapid.T) {
			now = now.Add(time.Duration(rapid.IntRange(1, 8).Draw(t, "wait")))
		},
		"expire": func(*rapid.T) {
			n.expire(now, lim.TTL)
			l.Expire(now, lim.TTL)
		},
		"": func(t *rapid.T) {
			compare(t, l, n, lim)
			compare(t, other, stood, lim)
		},
	})
}

func compare(t *rapid.T, l *Log[string], n *naive, lim Limits) {
	t.Helper()
	var held []uint64
	for _, e := range n.held() {
		held = append(held, e.offset)
	}
	if got := offsets(l.All()); !slices.Equal(got, held) || l.Offset() != n.offset || l.Len() != len(held) {
		t.Fatalf("held are %v up to %d, want %v up to %d", got, l.Offset(), held, n.offset)
	}
	if !l.Touched().Equal(n.touched) {
		t.Fatalf("touched at %v, want %v", l.Touched(), n.touched)
	}
	newest, ok := l.Newest()
	switch {
	case !n.latest.IsZero():
		if !ok || newest.Message != "latest" || newest.Offset != 0 {
			t.Fatalf("the newest is %+v, %v, want the one without an offset", newest, ok)
		}
	case ok != (len(held) > 0) || ok && newest.Offset != held[len(held)-1]:
		t.Fatalf("the newest is %v, %v, held are %v", newest.Offset, ok, held)
	}
	if len(l.ring) > 2*lim.Messages {
		t.Fatalf("there is room for %d messages, at most %d are held", len(l.ring), lim.Messages)
	}
	for offset := range n.offset + 2 {
		got, complete := l.Since("e", offset)
		want, wantComplete := n.since(offset)
		if !slices.Equal(offsets(got), want) || complete != wantComplete {
			t.Fatalf("after %d come %v, complete is %v; want %v, %v", offset, offsets(got), complete, want, wantComplete)
		}
	}
}

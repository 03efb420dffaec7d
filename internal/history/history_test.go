package history

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// generous limits nothing.
var generous = Limits{Messages: 1000, Bytes: 1 << 30, TTL: time.Hour}

// filled returns a log with messages at these offsets, one a second, each of the size 10.
func filled(lim Limits, offsets ...uint64) *Log[string] {
	l := New[string]("e", start)
	for i, offset := range offsets {
		l.Append(offset, fmt.Sprint("m", offset), 10, start.Add(time.Duration(i)*time.Second), lim)
	}
	return l
}

func offsets(entries []Entry[string]) []uint64 {
	all := make([]uint64, len(entries))
	for i, e := range entries {
		all[i] = e.Offset
	}
	return all
}

func wantHeld(t *testing.T, l *Log[string], want ...uint64) {
	t.Helper()
	if got := offsets(l.All()); !slices.Equal(got, want) || l.Len() != len(want) {
		t.Errorf("held are %v, %d of them, want %v", got, l.Len(), want)
	}
	newest, ok := l.Newest()
	if ok != (len(want) > 0) || ok && newest.Offset != want[len(want)-1] {
		t.Errorf("the newest is %v, %v, held are %v", newest, ok, want)
	}
}

func TestLog_Empty(t *testing.T) {
	l := New[string]("e", start)
	wantHeld(t, l)
	if l.Epoch() != "e" || l.Offset() != 0 || !l.Touched().Equal(start) {
		t.Errorf("an empty log is %+v", l)
	}
	if missed, complete := l.Since("e", 0); len(missed) != 0 || !complete {
		t.Error("who stands at the beginning has missed something")
	}
}

func TestLog_Limits(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits Limits
		want   []uint64
	}{
		{"none is met", generous, []uint64{1, 2, 3, 4, 5}},
		{"by number", Limits{Messages: 3, Bytes: 1 << 30, TTL: time.Hour}, []uint64{3, 4, 5}},
		{"by number, a single one", Limits{Messages: 1, Bytes: 1 << 30, TTL: time.Hour}, []uint64{5}},
		{"by bytes, exactly", Limits{Messages: 1000, Bytes: 20, TTL: time.Hour}, []uint64{4, 5}},
		{"by bytes, just short", Limits{Messages: 1000, Bytes: 29, TTL: time.Hour}, []uint64{4, 5}},
		{"by bytes, less than one", Limits{Messages: 1000, Bytes: 1, TTL: time.Hour}, []uint64{5}},
		{"by age, exactly", Limits{Messages: 1000, Bytes: 1 << 30, TTL: 2 * time.Second}, []uint64{4, 5}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := filled(test.limits, 1, 2, 3, 4, 5)
			wantHeld(t, l, test.want...)
			if l.Offset() != 5 || !l.Touched().Equal(start.Add(4*time.Second)) {
				t.Errorf("the log stands at %d, touched at %v", l.Offset(), l.Touched())
			}
		})
	}
}

func TestLog_Since(t *testing.T) {
	lim := Limits{Messages: 3, Bytes: 1 << 30, TTL: time.Hour}
	for _, test := range []struct {
		name     string
		log      *Log[string]
		epoch    string
		offset   uint64
		want     []uint64
		complete bool
	}{
		{"the newest seen", filled(generous, 1, 2, 3), "e", 3, nil, true},
		{"some missed", filled(generous, 1, 2, 3), "e", 1, []uint64{2, 3}, true},
		{"all missed", filled(generous, 1, 2, 3), "e", 0, []uint64{1, 2, 3}, true},
		{"ahead of the log", filled(generous, 1, 2, 3), "e", 4, nil, false},
		{"another epoch", filled(generous, 1, 2, 3), "d", 2, nil, false},
		{"no epoch", filled(generous, 1, 2, 3), "", 2, nil, false},
		{"just still reached", filled(lim, 1, 2, 3, 4, 5), "e", 2, []uint64{3, 4, 5}, true},
		{"just not reached", filled(lim, 1, 2, 3, 4, 5), "e", 1, nil, false},
		{"not neighbours, at a message", filled(generous, 10, 20, 30), "e", 20, []uint64{30}, true},
		{"not neighbours, between messages", filled(generous, 10, 20, 30), "e", 15, []uint64{20, 30}, true},
		{"not neighbours, before the first", filled(generous, 10, 20, 30), "e", 9, []uint64{10, 20, 30}, true},
		{"not neighbours, at the last one lost", filled(lim, 10, 20, 30, 40, 50), "e", 20, []uint64{30, 40, 50}, true},
		{"not neighbours, just before the last one lost", filled(lim, 10, 20, 30, 40, 50), "e", 19, nil, false},
		{"not neighbours, between lost and held", filled(lim, 10, 20, 30, 40, 50), "e", 25, []uint64{30, 40, 50}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, complete := test.log.Since(test.epoch, test.offset)
			if !slices.Equal(offsets(got), test.want) || complete != test.complete {
				t.Errorf("missed are %v, complete is %v; want %v, %v", offsets(got), complete, test.want, test.complete)
			}
		})
	}
}

func TestLog_Expire(t *testing.T) {
	const ttl = 10 * time.Second
	l := filled(generous, 1, 2, 3)
	l.Expire(start.Add(ttl-1), ttl)
	wantHeld(t, l, 1, 2, 3)
	l.Expire(start.Add(ttl), ttl)
	wantHeld(t, l, 2, 3)
	l.Expire(start.Add(time.Hour), ttl)
	wantHeld(t, l)
	if l.ring != nil || l.bytes != 0 {
		t.Errorf("an expired log keeps room for %d messages and counts %d bytes", len(l.ring), l.bytes)
	}
	if l.Offset() != 3 || l.Epoch() != "e" {
		t.Errorf("the position is lost: %s, %d", l.Epoch(), l.Offset())
	}
	if _, complete := l.Since("e", 2); complete {
		t.Error("who has not seen what expired is told that nothing is missing")
	}
	if missed, complete := l.Since("e", 3); len(missed) != 0 || !complete {
		t.Error("who has seen everything is told that something is missing")
	}
	l.Append(4, "m4", 10, start.Add(time.Hour), generous)
	wantHeld(t, l, 4)
}

func TestLog_OversizedMessageIsHeldAlone(t *testing.T) {
	lim := Limits{Messages: 10, Bytes: 25, TTL: time.Hour}
	l := filled(lim, 1, 2)
	l.Append(3, "large", 1000, start, lim)
	wantHeld(t, l, 3)
	l.Append(4, "small", 10, start, lim)
	wantHeld(t, l, 4)
}

func TestLog_DroppedMessagesCanBeCollected(t *testing.T) {
	lim := Limits{Messages: 4, Bytes: 1 << 30, TTL: time.Hour}
	l := New[*int]("e", start)
	for offset := uint64(1); offset <= 6; offset++ {
		l.Append(offset, new(int), 1, start, Limits{Messages: int(min(offset, 4)), Bytes: lim.Bytes, TTL: lim.TTL})
	}
	l.Append(7, new(int), lim.Bytes, start, lim)
	for i, e := range l.ring {
		if held := i == l.head; held != (e.Message != nil) {
			t.Errorf("slot %d of %d keeps a message: %v", i, len(l.ring), e.Message != nil)
		}
	}
}

func TestLog_OffsetMustIncrease(t *testing.T) {
	for _, offset := range []uint64{0, 2, 3} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("offset %d was accepted after 3", offset)
				}
			}()
			filled(generous, 3).Append(offset, "", 1, start, generous)
		}()
	}
}

func TestLog_FullDoesNotAllocate(t *testing.T) {
	lim := Limits{Messages: 64, Bytes: 1 << 30, TTL: time.Hour}
	l := New[string]("e", start)
	offset := uint64(0)
	appendOne := func() {
		offset++
		l.Append(offset, "m", 1, start, lim)
	}
	for range 64 {
		appendOne()
	}
	if n := testing.AllocsPerRun(1000, appendOne); n != 0 {
		t.Errorf("an append takes %v allocations", n)
	}
	if len(l.ring) != 64 {
		t.Errorf("64 messages have room for %d", len(l.ring))
	}
}

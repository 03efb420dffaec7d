package natsbroker

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// stream is what a stream does with the messages of one channel, between those of others, and what became of them.
type stream struct {
	limit   int // how many messages of the channel are handed out; the stream keeps one more
	last    uint64
	entries []entry
	record  *record
	// stored are all messages of the channel's present epoch, told whoever was told last.
	stored []uint64
	epoch  string
	told   history
	epochs int
}

func (s *stream) next() uint64 {
	s.last++
	return s.last
}

func (s *stream) store() {
	e := entry{sequence: s.next(), at: time.Unix(int64(s.last), 0)}
	s.entries = append(s.entries, e)
	s.entries = s.entries[max(0, len(s.entries)-s.limit-1):]
	s.stored = append(s.stored, e.sequence)
}

// age drops everything below a sequence.
func (s *stream) age(below uint64) {
	s.entries = slices.DeleteFunc(s.entries, func(e entry) bool { return e.sequence < below })
	if s.record != nil && s.record.sequence < below {
		s.record = nil
	}
}

// write writes the record of a history, as of which other messages may have been stored since.
func (s *stream) write(h history) {
	r := h.record()
	r = parseRecord(r.String())
	r.sequence = s.next()
	s.record = r
}

// forget leaves a mark, and begins another epoch.
func (s *stream) forget() {
	s.epochs++
	s.epoch, s.stored, s.told = "forgotten-"+strconv.Itoa(s.epochs), nil, history{}
	s.entries = []entry{{sequence: s.next(), epoch: s.epoch}}
}

// kept is what a node would do for Kept.
func (s *stream) kept(t *rapid.T, refresh bool) {
	h := newHistory(slices.Clone(s.entries), s.record, s.limit)
	if h.Epoch == "" {
		s.epochs++
		h.Epoch = "begun-" + strconv.Itoa(s.epochs)
		s.write(h)
		s.epoch, s.told = h.Epoch, history{}
		s.stored = nil
		for _, m := range h.Messages {
			s.stored = append(s.stored, m.Offset)
		}
	} else if refresh || h.stale {
		s.write(h)
	}
	s.check(t, h)
	s.told = h
}

func (s *stream) check(t *rapid.T, h history) {
	if h.Epoch != s.epoch {
		t.Fatalf("the epoch is %q, want %q", h.Epoch, s.epoch)
	}
	if h.Offset < s.told.Offset {
		t.Fatalf("the offset went from %d back to %d", s.told.Offset, h.Offset)
	}
	var newest uint64
	if len(s.stored) > 0 {
		newest = s.stored[len(s.stored)-1]
	}
	if h.Offset != newest {
		t.Fatalf("the offset is %d, want %d", h.Offset, newest)
	}
	if h.Floor > h.Offset {
		t.Fatalf("the floor %d is above the offset %d", h.Floor, h.Offset)
	}
	var have, want []uint64
	for _, m := range h.Messages {
		have = append(have, m.Offset)
	}
	for _, sequence := range s.stored {
		if sequence > h.Floor {
			want = append(want, sequence)
		}
	}
	if !slices.Equal(have, want) {
		t.Fatalf("above the floor %d was stored %v, but %v is kept", h.Floor, want, have)
	}
	if len(have) > s.limit {
		t.Fatalf("%d messages are kept, want at most %d", len(have), s.limit)
	}
}

// TestHistoryClaimsNoMoreThanItKnows lets messages come, be too many and too old, and be forgotten, in any order.
func TestHistoryClaimsNoMoreThanItKnows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &stream{limit: rapid.IntRange(1, 4).Draw(t, "limit")}
		t.Repeat(map[string]func(*rapid.T){
			"store":   func(*rapid.T) { s.store() },
			"another": func(*rapid.T) { s.next() },
			"kept":    func(t *rapid.T) { s.kept(t, false) },
			"refresh": func(t *rapid.T) { s.kept(t, true) },
			"forget": func(t *rapid.T) {
				s.forget()
				s.kept(t, false)
			},
			"age": func(t *rapid.T) {
				s.age(rapid.Uint64Range(0, s.last+1).Draw(t, "below"))
			},
		})
	})
}

func TestFloorReachesBackWhereNothingIsMissing(t *testing.T) {
	at := func(sequences ...uint64) (entries []entry) {
		for _, sequence := range sequences {
			entries = append(entries, entry{sequence: sequence})
		}
		return entries
	}
	for _, c := range []struct {
		name    string
		entries []entry
		record  *record
		want    uint64
	}{
		{"nothing known", at(7, 9), nil, 6},
		{"all since the beginning", at(7, 9), &record{epoch: "e", sequence: 5}, 0},
		{"all since the record", at(7, 9), &record{epoch: "e", sequence: 5, upto: 3}, 3},
		{"the same as when recorded", at(3, 9), &record{epoch: "e", sequence: 5, upto: 3, first: 3, floor: 1}, 1},
		{"less than when recorded", at(3, 9), &record{epoch: "e", sequence: 5, upto: 3, first: 2}, 2},
		{"too many", at(3, 4, 5, 6), &record{epoch: "e", sequence: 2}, 3},
		{"after a mark", append([]entry{{sequence: 4, epoch: "f"}}, at(5)...), &record{epoch: "e", sequence: 2}, 0},
		{"rolled up by a stranger", []entry{{sequence: 7, rolled: true}}, &record{epoch: "e", sequence: 5}, 6},
	} {
		if h := newHistory(c.entries, c.record, 3); h.Floor != c.want {
			t.Errorf("%s: the floor is %d, want %d", c.name, h.Floor, c.want)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("abc 1 2 3 4")
	f.Add("")
	f.Add("abc 1 2 3 -4")
	f.Fuzz(func(t *testing.T, text string) {
		r := parseRecord(text)
		if r == nil {
			return
		}
		if again := parseRecord(r.String()); again == nil || *again != *r {
			t.Errorf("%q was read as %+v, and that as %+v", text, r, again)
		}
	})
}

func FuzzAck(f *testing.F) {
	f.Add([]byte(`{"stream":"S", "seq":12}`))
	f.Add([]byte(`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"},"stream":"S","seq":0}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if sequence, err := parseAck(data); (sequence == 0) == (err == nil) {
			t.Errorf("%q is sequence %d with error %v", data, sequence, err)
		}
	})
}

func TestRecordThatMissedAMessageIsWrittenAgain(t *testing.T) {
	r := &record{epoch: "e", upto: 3, sequence: 5}
	if h := newHistory([]entry{{sequence: 3}, {sequence: 4}}, r, 3); !h.stale {
		t.Error("a record written without knowledge of message 4 passes for exact")
	}
	if h := newHistory([]entry{{sequence: 3}, {sequence: 6}}, r, 3); h.stale {
		t.Error("an exact record passes for one that is not")
	}
}

package natsbroker

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/broker"
)

// stream models how a stream handles the messages of one channel among others.
type stream struct {
	limit    int // how many messages of the channel are returned; the stream holds one more
	last     uint64
	messages []message
	record   *record
	// epochs are the sequences of the messages that hold the stream's epoch.
	epochs []uint64
	// stored are the sequences of all messages of the channel ever stored, seen the histories read.
	stored    []uint64
	seen      []history
	forgotten uint64 // the sequence of the newest marker
	markers   int
	raises    int // how many times the limit was raised
}

func (s *stream) next() uint64 {
	s.last++
	return s.last
}

func (s *stream) store() {
	m := message{sequence: s.next(), at: time.Unix(int64(s.last), 0)}
	s.append(m)
	s.stored = append(s.stored, m.sequence)
}

func (s *stream) append(m message) {
	s.messages = append(s.messages, m)
	s.messages = s.messages[max(0, len(s.messages)-s.limit-1):]
}

// age drops everything below a sequence, except that the stream's epoch is always stored again in time.
func (s *stream) age(below uint64) {
	below = min(below, s.epochs[len(s.epochs)-1])
	s.epochs = slices.DeleteFunc(s.epochs, func(sequence uint64) bool { return sequence < below })
	s.messages = slices.DeleteFunc(s.messages, func(m message) bool { return m.sequence < below })
	if s.record != nil && s.record.sequence < below {
		s.record = nil
	}
}

// forget stores a marker, which drops all messages before it, and the record, unless the node fails in between.
func (s *stream) forget(fails bool) {
	s.markers++
	s.forgotten = s.next()
	s.messages = []message{{sequence: s.forgotten, epoch: s.streamEpoch().fork("marker" + strconv.Itoa(s.markers))}}
	if !fails {
		s.write(s.read())
	}
}

// raise raises the limit, which begins another epoch.
func (s *stream) raise() {
	s.raises++
	s.limit++
	s.epochs = []uint64{s.next()}
}

func (s *stream) streamEpoch() streamEpoch {
	return streamEpoch{name: "stream_" + strconv.Itoa(s.raises), sequence: s.epochs[0]}
}

func (s *stream) read() history {
	return newHistory(slices.Clone(s.messages), s.record, s.streamEpoch(), s.limit)
}

func (s *stream) write(h history) {
	r := parseRecord(h.record(0).String())
	r.sequence = s.next()
	s.record = r
}

// check reads the channel and complains of claims that are not true.
func (s *stream) check(t *rapid.T) {
	h := s.read()
	if h.unrecorded {
		s.write(h)
	}
	s.checkSnapshot(t, h)
	for _, before := range s.seen {
		since := before.Position
		from := slices.DeleteFunc(slices.Clone(s.messages), func(m message) bool { return m.sequence < since.Offset })
		if since.Offset == 0 {
			continue
		}
		if c, ok := continuation(from, s.record, s.streamEpoch(), since); ok {
			s.checkSnapshot(t, c)
			if c.Position != h.Position {
				t.Fatalf("the continuation is at %+v, want %+v", c.Position, h.Position)
			}
		}
		if h.Epoch == since.Epoch && h.Offset < since.Offset {
			t.Fatalf("the offset went from %d back to %d", since.Offset, h.Offset)
		}
		// A reader at since reads on from there if since is at or above the floor of the same epoch.
		if h.Epoch == since.Epoch && since.Offset >= h.Floor && since.Offset < s.forgotten && since.Offset > 0 {
			t.Fatalf("a reader at %d, before the channel was forgotten at %d, would not notice", since.Offset, s.forgotten)
		}
	}
	s.seen = append(s.seen, h)
}

func (s *stream) checkSnapshot(t *rapid.T, h history) {
	newest := uint64(0)
	for _, sequence := range s.stored {
		if sequence > h.begin {
			newest = sequence
		}
	}
	if h.Offset < newest || len(h.Messages) > 0 && h.Offset != newest {
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
		if sequence > max(h.Floor, h.begin) {
			want = append(want, sequence)
		}
	}
	if !slices.Equal(have, want) {
		t.Fatalf("above the floor %d was stored %v, but the history has %v", h.Floor, want, have)
	}
	if len(have) > s.limit {
		t.Fatalf("the history has %d messages, want at most %d", len(have), s.limit)
	}
}

// TestHistory_ClaimsAreTrue stores, expires and forgets messages in any order. Above its floor, a history has every
// message that was ever stored, and offsets never go back within an epoch.
func TestHistory_ClaimsAreTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &stream{limit: rapid.IntRange(1, 4).Draw(t, "limit"), last: rapid.Uint64Range(0, 1).Draw(t, "foreign")}
		s.epochs = []uint64{s.next()}
		t.Repeat(map[string]func(*rapid.T){
			"store": func(*rapid.T) { s.store() },
			"overflow": func(*rapid.T) { // more messages than the stream holds
				for range s.limit + 2 {
					s.store()
				}
			},
			"raise":   func(t *rapid.T) { s.raise(); s.check(t) },
			"another": func(*rapid.T) { s.next() },
			"epoch":   func(*rapid.T) { s.epochs = append(s.epochs, s.next()) },
			"read":    s.check,
			"refresh": func(*rapid.T) { s.write(s.read()) },
			"forget":  func(t *rapid.T) { s.forget(rapid.Bool().Draw(t, "fails")); s.check(t) },
			"age":     func(t *rapid.T) { s.age(rapid.Uint64Range(0, s.last+1).Draw(t, "below")) },
		})
	})
}

// TestHistory_FloorIsLowestCertain: the floor is as low as record, marker and stream epoch allow.
func TestHistory_FloorIsLowestCertain(t *testing.T) {
	at := func(sequences ...uint64) (messages []message) {
		for _, sequence := range sequences {
			messages = append(messages, message{sequence: sequence})
		}
		return messages
	}
	for _, c := range []struct {
		name     string
		messages []message
		record   *record
		stream   uint64
		want     uint64
	}{
		{"stream epoch is newer", at(7, 9), nil, 8, 6},
		{"all since the stream was created", at(7, 9), nil, 1, 0},
		{"all since the stream epoch", at(7, 9), nil, 4, 4},
		{"all since the record", at(7, 9), &record{epoch: "e", sequence: 5, last: 3}, 8, 3},
		{"older than the record", at(3, 9), &record{epoch: "e", sequence: 5, last: 3}, 8, 2},
		{"more than the limit", at(3, 4, 5, 6), &record{epoch: "e", sequence: 2}, 1, 3},
		{"after a marker", append([]message{{sequence: 4, epoch: "e-f"}}, at(5)...), &record{epoch: "e", sequence: 2}, 1, 0},
		{"rolled up by others", []message{{sequence: 7, rolledUp: true}}, &record{epoch: "e", sequence: 5}, 1, 6},
		{"no message", nil, nil, 4, 0},
	} {
		if h := newHistory(c.messages, c.record, streamEpoch{"e", c.stream}, 3); h.Floor != c.want {
			t.Errorf("%s: the floor is %d, want %d", c.name, h.Floor, c.want)
		}
	}
}

// TestHistory_BoundKeepsNewest: a bound in bytes drops the oldest messages and raises the floor.
func TestHistory_BoundKeepsNewest(t *testing.T) {
	for _, c := range []struct {
		bytes, want int
		floor       uint64
	}{{0, 3, 0}, {30, 3, 0}, {29, 2, 1}, {20, 2, 1}, {19, 1, 2}, {1, 1, 2}} {
		h := history{}
		for offset := range uint64(3) {
			h.Messages = append(h.Messages, broker.Stored{Offset: offset + 1, Payload: make([]byte, 10)})
		}
		if h.bound(c.bytes); len(h.Messages) != c.want || h.Floor != c.floor {
			t.Errorf("%d bytes: %d messages above %d, want %d above %d", c.bytes, len(h.Messages), h.Floor, c.want, c.floor)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("abc 1 2")
	f.Add("")
	f.Add("abc 1 -2")
	f.Fuzz(func(t *testing.T, text string) {
		r := parseRecord(text)
		if r == nil {
			return
		}
		if again := parseRecord(r.String()); again == nil || *again != *r {
			t.Errorf("%q was parsed as %+v, and that as %+v", text, r, again)
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

// TestReading_HoldsNoMoreThanHistoryReturns: a read of many pages drops the payloads that its result will not have.
func TestReading_HoldsNoMoreThanHistoryReturns(t *testing.T) {
	var messages []message
	for page := range 5 {
		for range 3 {
			messages = append(messages, message{sequence: uint64(len(messages) + 1), payload: make([]byte, 10)})
		}
		dropPayloads(messages, 25)
		for i, m := range messages {
			if held := m.payload != nil; held != (i >= len(messages)-2) {
				t.Errorf("page %d: the payload of message %d of %d is held: %v", page, i, len(messages), held)
			}
		}
	}
	messages = append(messages, message{sequence: 100, payload: make([]byte, 30)})
	dropPayloads(messages, 25)
	h := history{}
	h.appendMessages(messages)
	if h.bound(25); len(h.Messages) != 1 || h.Messages[0].Offset != 100 || h.Floor != 15 {
		t.Errorf("the history is %+v, want the newest message above 15", h.Snapshot)
	}
}

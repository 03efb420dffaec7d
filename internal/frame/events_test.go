package frame

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

func acknowledge(uploadID, epoch string, offset uint64) *Frame {
	return NewAcknowledgement(uploadID, Start{epoch, offset}, []byte(`{"action":"subscribed"}`))
}

func note(uploadID string, offset uint64) *Frame {
	return ForUpload(Message{UploadID: uploadID, Offset: offset, Body: fmt.Appendf(nil, `{"upload_id":%q}`, uploadID), NamesUpload: true})
}

// idsOf returns the ids of the events in a stream.
func idsOf(stream []byte) (ids []string) {
	for line := range strings.Lines(string(stream)) {
		if id, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "id: "); found {
			ids = append(ids, id)
		}
	}
	return ids
}

// TestEvents_Append: the bytes of each kind of event.
func TestEvents_Append(t *testing.T) {
	for name, c := range map[string]struct {
		frame   *Frame
		skipped uint32
		want    string
	}{
		"acknowledgement": {acknowledge("a", "e", 6), 0, "id: e:6\ndata: {\"action\":\"subscribed\"}\n\n"},
		"message":         {note("a", 7), 0, "id: e:7\ndata: {\"upload_id\":\"a\",\"offset\":7}\n\n"},
		"skipped":         {note("a", 8), 2, "id: e:8\ndata: {\"upload_id\":\"a\",\"offset\":8,\"skipped\":2}\n\n"},
		"without offset":  {note("a", 0), 0, "data: {\"upload_id\":\"a\"}\n\n"},
		"other upload":    {note("b", 9), 0, "data: {\"upload_id\":\"b\",\"offset\":9}\n\n"},
		"line breaks": {
			New(Text, Event, []byte("{\n\"a\":1,\r\n\"b\":2,\r\"c\":3\n}\n")), 0,
			"data: {\ndata: \"a\":1,\ndata: \"b\":2,\ndata: \"c\":3\ndata: }\ndata: \n\n",
		},
		"ping":   {New(Ping, Control, nil), 0, ":\n\n"},
		"pong":   {New(Pong, Control, []byte("x")), 0, ""},
		"binary": {New(Binary, Event, []byte("x\n")), 0, ""},
		"raw":    {New(Raw, Control, []byte("retry: 5\n")), 0, "retry: 5\n"},
	} {
		e := NewEventEncoder([]string{"a"}, map[string]Start{"a": {"e", 1}})
		if got := string(e.Append(nil, c.frame, c.skipped)); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		if n := len(c.want) - c.frame.Size(); n > e.Overhead() && name != "line breaks" {
			t.Errorf("%s: %d bytes more than the frame, beyond the overhead of %d", name, n, e.Overhead())
		}
	}
}

// TestEvents_IDsContinueTheStream: the id of each event holds the position of every upload up to that event, and
// returns to these positions when it is parsed.
func TestEvents_IDsContinueTheStream(t *testing.T) {
	uploads := []string{"b", "a", "c"}
	since := map[string]Start{"c": {"old: ,=%", 5}}
	e := NewEventEncoder(uploads, since)
	want := maps.Clone(since)
	for _, f := range []*Frame{
		acknowledge("a", "e1", 3), note("a", 4), acknowledge("b", "e2", 0), note("a", 5), note("b", 2),
		acknowledge("b", "e\n3", 0), acknowledge("c", "new", 9), note("c", 10), note("b", 1),
	} {
		at := want[f.UploadID()]
		at.Offset = f.Offset()
		if start, ok := f.Start(); ok {
			at = start
		}
		want[f.UploadID()] = at
		ids := idsOf(e.Append(nil, f, 0))
		if len(ids) != 1 {
			t.Fatalf("an event has the ids %q, want one", ids)
		}
		if got, err := ParseEventID(ids[0], uploads); err != nil || !maps.Equal(got, want) {
			t.Fatalf("id %q holds %v (%v), want %v", ids[0], got, err, want)
		}
	}
}

// TestEvents_Rewind: after Rewind, positions are as Begin found them.
func TestEvents_Rewind(t *testing.T) {
	e := NewEventEncoder([]string{"a", "b"}, map[string]Start{"a": {"e", 1}, "b": {"f", 1}})
	before := string(e.appendID(nil))
	e.Begin()
	e.Append(nil, note("a", 2), 0)
	e.Append(nil, acknowledge("b", "g", 0), 0)
	if string(e.appendID(nil)) == before {
		t.Fatal("the positions have not changed")
	}
	if e.Rewind(); string(e.appendID(nil)) != before {
		t.Errorf("positions are %s, want %s", e.appendID(nil), before)
	}
}

// TestEvents_IDIsBounded: the id of the largest stream is not longer than ParseEventID accepts and a proxy's header
// field may be. A longer epoch is left out.
func TestEvents_IDIsBounded(t *testing.T) {
	uploads := make([]string, MaxEventUploads)
	for i := range uploads {
		uploads[i] = fmt.Sprint(i, strings.Repeat("x", 250))
	}
	e := NewEventEncoder(uploads, nil)
	for _, id := range uploads {
		e.Append(nil, acknowledge(id, strings.Repeat("e", maxEpoch), 1<<64-1), 0)
	}
	id := idsOf(e.appendID(nil))[0]
	if len(id) > MaxEventID || MaxEventID > 8<<10 {
		t.Errorf("the id has %d bytes, the bound is %d", len(id), MaxEventID)
	}
	if got, err := ParseEventID(id, uploads); err != nil || len(got) != len(uploads) {
		t.Errorf("%d positions (%v), want %d", len(got), err, len(uploads))
	}
	e.Append(nil, acknowledge(uploads[0], strings.Repeat("e", maxEpoch+1), 1), 0)
	if got, err := ParseEventID(idsOf(e.appendID(nil))[0], uploads); err != nil || len(got) != len(uploads)-1 {
		t.Errorf("%d positions (%v), want one less", len(got), err)
	}
}

// TestParseEventID_RefusesWhatNoEventHas: and the error does not repeat it.
func TestParseEventID_RefusesWhatNoEventHas(t *testing.T) {
	const secret = "secret"
	for _, id := range []string{
		"", secret, secret + ":", ":1", secret + ":-1", secret + ":1:2", secret + ":18446744073709551616", "a b:1" + secret,
		secret + ":1,", "12345678=" + secret, "1234567=e:1," + secret, "12345678=e:1,,", "é" + secret + ":1",
		secret + "%zz:1", secret + "\n:1", strings.Repeat(secret, MaxEventID),
		strings.Repeat("e", maxEpoch+1) + ":1" + secret,
	} {
		got, err := ParseEventID(id, []string{"a", "b"})
		if err == nil {
			t.Errorf("%.40q: got %v, want an error", id, got)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the error %q repeats the id", err)
		}
	}
}

// TestParseEventID_IgnoresPositionsOfOthers: an id of a stream with other uploads, and one that names an upload twice,
// are no position.
func TestParseEventID_IgnoresPositionsOfOthers(t *testing.T) {
	a, b := tag("a"), tag("b")
	for id, want := range map[string]map[string]Start{
		"e:1":                                  {},
		a + "=e:1":                             {"a": {"e", 1}},
		"AAAAAAAA=e:1," + b + "=f:2":           {"b": {"f", 2}},
		a + "=e:1," + a + "=e:2":               {},
		a + "=e:1," + a + "=e:2," + a + "=e:3": {},
	} {
		if got, err := ParseEventID(id, []string{"a", "b"}); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: got %v (%v), want %v", id, got, err, want)
		}
	}
	if got, err := ParseEventID(a+"=e:1", []string{"a"}); err != nil || got["a"].Offset != 1 {
		t.Errorf("one upload of several: got %v (%v)", got, err)
	}
}

func TestEvents_AppendDoesNotAllocate(t *testing.T) {
	e := NewEventEncoder([]string{"a", "b"}, map[string]Start{"a": {"e", 1}, "b": {"f", 1}})
	f, room := note("a", 1<<60), make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { e.Begin(); e.Append(room, f, 3) }); n != 0 {
		t.Errorf("%v allocations per event, want none", n)
	}
}

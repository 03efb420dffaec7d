package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// parse reads one frame as RFC 6455, 5.2 has it, and nothing but a frame that a server may send whole.
func parse(wire []byte) (op Opcode, payload, rest []byte, err error) {
	if len(wire) < 2 {
		return 0, nil, nil, errors.New("no header")
	}
	if wire[0]&0x80 == 0 || wire[0]&0x70 != 0 || wire[1]&0x80 != 0 {
		return 0, nil, nil, fmt.Errorf("not final, reserved bits or masked: % x", wire[:2])
	}
	op, n, rest := Opcode(wire[0]&0x0F), uint64(wire[1]), wire[2:]
	switch {
	case n == 126 && len(rest) >= 2:
		n, rest = uint64(binary.BigEndian.Uint16(rest)), rest[2:]
		if n < 126 {
			return 0, nil, nil, fmt.Errorf("length %d in 16 bits", n)
		}
	case n == 127 && len(rest) >= 8:
		n, rest = binary.BigEndian.Uint64(rest), rest[8:]
		if n < 1<<16 {
			return 0, nil, nil, fmt.Errorf("length %d in 64 bits", n)
		}
	}
	if op >= Close && n > 125 {
		return 0, nil, nil, fmt.Errorf("a control frame of %d bytes", n)
	}
	if uint64(len(rest)) < n {
		return 0, nil, nil, fmt.Errorf("%d bytes of payload, announced were %d", len(rest), n)
	}
	return op, rest[:n], rest[n:], nil
}

// parsed returns the payload of a single frame.
func parsed(t *testing.T, wire []byte, want Opcode) string {
	t.Helper()
	op, payload, rest, err := parse(wire)
	if err != nil || op != want || len(rest) > 0 {
		t.Fatalf("opcode %x, %d bytes left, error %v", op, len(rest), err)
	}
	return string(payload)
}

// object returns a JSON object with a length of n bytes.
func object(size int) []byte {
	return []byte(`{"a":"` + strings.Repeat("x", size-len(`{"a":""}`)) + `"}`)
}

func TestFrame_HeaderOfEachLength(t *testing.T) {
	for size, header := range map[int][]byte{
		0:     {0x81, 0},
		1:     {0x81, 1},
		125:   {0x81, 125},
		126:   {0x81, 126, 0, 126},
		127:   {0x81, 126, 0, 127},
		65535: {0x81, 126, 0xFF, 0xFF},
		65536: {0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0},
	} {
		body := bytes.Repeat([]byte("x"), size)
		f := New(Text, Event, body)
		for _, v := range []Variant{Base, V1} {
			if wire := f.Append(nil, v, 0); !bytes.Equal(wire, append(header, body...)) {
				t.Errorf("%d bytes begin with % x, want % x", size, wire[:len(header)], header)
			}
		}
		if got := parsed(t, f.Append(nil, Base, 0), Text); got != string(body) {
			t.Errorf("%d bytes come back as %d", size, len(got))
		}
		if f.Size() != len(header)+size {
			t.Errorf("%d bytes count for %d, want %d", size, f.Size(), len(header)+size)
		}
	}
	if header := AppendHeader(nil, Binary, 1<<40); !bytes.Equal(header, []byte{0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0}) {
		t.Errorf("a very long frame begins with % x", header)
	}
}

func TestFrame_V1AddsOffsetAndSkipped(t *testing.T) {
	for _, test := range []struct {
		offset  uint64
		skipped uint32
		want    string
	}{
		{0, 0, `{"action":"x"}`},
		{0, 3, `{"action":"x","skipped":3}`},
		{7, 0, `{"action":"x","offset":7,"upload_id":"cat"}`},
		{7, 1, `{"action":"x","offset":7,"upload_id":"cat","skipped":1}`},
		{math.MaxUint64, math.MaxUint32, `{"action":"x","offset":18446744073709551615,"upload_id":"cat","skipped":4294967295}`},
	} {
		f := ForUpload(Message{UploadID: "cat", Class: State, Offset: test.offset, Body: []byte(`{"action":"x"}`)})
		if got := parsed(t, f.Append(nil, V1, test.skipped), Text); got != test.want {
			t.Errorf("V1 reads %s, want %s", got, test.want)
		}
		if got := parsed(t, f.Append(nil, Base, test.skipped), Text); got != `{"action":"x"}` {
			t.Errorf("base reads %s", got)
		}
		if f.UploadID() != "cat" || f.Class() != State || f.Offset() != test.offset || f.Opcode() != Text {
			t.Errorf("the frame is %+v", f)
		}
	}
}

// The longer payload of V1 may need a longer header than the base form.
func TestFrame_V1AtHeaderBoundaries(t *testing.T) {
	for size := 95; size < 130; size++ {
		testV1(t, size)
	}
	for size := 65490; size < 65540; size++ {
		testV1(t, size)
	}
}

func testV1(t *testing.T, size int) {
	t.Helper()
	f := ForUpload(Message{UploadID: "cat", Offset: 123456789, Body: object(size)})
	for _, skipped := range []uint32{0, 42} {
		var got struct {
			A       string
			Offset  uint64
			Skipped uint32
		}
		if err := json.Unmarshal([]byte(parsed(t, f.Append(nil, V1, skipped), Text)), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.A)+len(`{"a":""}`) != size || got.Offset != 123456789 || got.Skipped != skipped {
			t.Errorf("%d bytes come back as %d with offset %d, skipped %d", size, len(got.A), got.Offset, got.Skipped)
		}
	}
	if n := len(f.Append(nil, V1, 0)); f.Size() != n {
		t.Errorf("%d bytes count for %d, want %d", size, f.Size(), n)
	}
}

func TestAppend_KeepsPrefix(t *testing.T) {
	f := ForUpload(Message{UploadID: "cat", Offset: 9, Body: []byte(`{"a":1}`)})
	wire := New(Ping, Control, nil).Append([]byte("before"), Base, 0)
	wire = f.Append(wire, V1, 2)
	wire = f.Append(wire, Base, 0)
	rest, found := bytes.CutPrefix(wire, []byte("before"))
	if !found {
		t.Fatalf("the beginning is %q", wire[:6])
	}
	for _, want := range []string{"", `{"a":1,"offset":9,"upload_id":"cat","skipped":2}`, `{"a":1}`} {
		var payload []byte
		var err error
		if _, payload, rest, err = parse(rest); err != nil || string(payload) != want {
			t.Fatalf("read %q, %v, want %q", payload, err, want)
		}
	}
	if string(f.Body()) != `{"a":1}` {
		t.Errorf("writing the frame changed its body to %s", f.Body())
	}
}

func TestFrame_V1Alone(t *testing.T) {
	f := NewV1(Event, []byte(`{"action":"resumed"}`))
	if f.For(Base) || !f.For(V1) || f.Class() != Event || f.Opcode() != Text || f.UploadID() != "" {
		t.Errorf("the frame is %+v", f)
	}
	if got := parsed(t, f.Append(nil, V1, 0), Text); got != `{"action":"resumed"}` {
		t.Errorf("it reads %s", got)
	}
	if both := New(Text, Event, nil); !both.For(Base) || !both.For(V1) {
		t.Error("an ordinary frame is not for everybody")
	}
}

func TestFrame_Close(t *testing.T) {
	for _, test := range []struct{ name, reason, want string }{
		{"without a reason", "", ""},
		{"with a reason", "Server reloading", "Server reloading"},
		{"as long as may be", strings.Repeat("x", 123), strings.Repeat("x", 123)},
		{"one byte too long", strings.Repeat("x", 124), strings.Repeat("x", 123)},
		{"cut after a rune", strings.Repeat("x", 121) + "üü", strings.Repeat("x", 121) + "ü"},
		{"cut within two bytes", strings.Repeat("x", 122) + "ü", strings.Repeat("x", 122)},
		{"cut within four bytes", strings.Repeat("x", 120) + "🐟", strings.Repeat("x", 120)},
		{"nothing but runes", strings.Repeat("€", 100), strings.Repeat("€", 41)},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := NewClose(1012, test.reason)
			payload := parsed(t, f.Append(nil, V1, 0), Close)
			if code := binary.BigEndian.Uint16([]byte(payload)); code != 1012 || payload[2:] != test.want {
				t.Errorf("closes with %d %q, want %q", code, payload[2:], test.want)
			}
			if !utf8.ValidString(payload[2:]) || f.Class() != Control {
				t.Errorf("the reason is valid: %v, the class %d", utf8.ValidString(payload[2:]), f.Class())
			}
		})
	}
}

func TestAppend_DoesNotAllocate(t *testing.T) {
	f := ForUpload(Message{UploadID: "cat", Class: State, Offset: math.MaxUint64, Body: object(200)})
	room := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { f.Append(room, V1, math.MaxUint32) }); n != 0 {
		t.Errorf("writing a frame takes %v allocations", n)
	}
}

// A message with an offset names its upload, so that a client of many uploads knows which position has changed.
func TestFrame_OffsetComesWithItsUpload(t *testing.T) {
	for _, c := range []struct {
		id    string
		names bool
		want  string
	}{
		{"cat", false, `{"action":"x","offset":7,"upload_id":"cat","skipped":2}`},
		{"cat", true, `{"action":"x","offset":7,"skipped":2}`},
		{`a"b\c/ü`, false, `{"action":"x","offset":7,"upload_id":"a\"b\\c/ü","skipped":2}`},
	} {
		f := ForUpload(Message{UploadID: c.id, Offset: 7, Body: []byte(`{"action":"x"}`), NamesUpload: c.names})
		if got := parsed(t, f.Append(nil, V1, 2), Text); got != c.want || !json.Valid([]byte(got)) {
			t.Errorf("%s: %s", c.id, got)
		}
		if f.Size() != len(f.Append(nil, V1, 0)) {
			t.Errorf("%s: the size is %d, of %d bytes", c.id, f.Size(), len(f.Append(nil, V1, 0)))
		}
	}
}

// AppendPayload is the wire form without its header, for each variant and count.
func TestFrame_AppendPayloadIsTheWireFormWithoutHeader(t *testing.T) {
	for _, f := range []*Frame{
		ForUpload(Message{UploadID: "cat", Class: State, Offset: 7, Epoch: "e", Body: []byte(`{"action":"x"}`)}),
		ForUpload(Message{UploadID: "cat", Class: State, Body: []byte(`{"action":"x"}`)}),
		New(Binary, Event, []byte("\x00\xff")),
	} {
		for _, v := range []Variant{Base, V1} {
			for _, skipped := range []uint32{0, 3} {
				if f.Opcode() == Binary && skipped > 0 {
					continue // only states are replaced
				}
				want := parsed(t, f.Append(nil, v, skipped), f.Opcode())
				if got := string(f.AppendPayload([]byte("ab"), v, skipped)); got != "ab"+want {
					t.Errorf("%d, skipped %d: %q, want %q", v, skipped, got, want)
				}
			}
		}
	}
}

// A frame takes two cache lines: its mark for tracing costs no memory.
func TestFrame_SizeIsTwoCacheLines(t *testing.T) {
	if size := unsafe.Sizeof(Frame{}); size > 128 {
		t.Errorf("a frame takes %d bytes", size)
	}
	f := ForUpload(Message{UploadID: "a", Body: []byte(`{"action":"note"}`), Offset: 1})
	traced := f.WithTrace()
	if f.Traced() || !traced.Traced() || string(traced.Append(nil, V1, 0)) != string(f.Append(nil, V1, 0)) {
		t.Error("WithTrace changes more than the mark")
	}
}

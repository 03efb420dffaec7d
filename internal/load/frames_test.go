package load

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/wsframe"
)

// serverFrame is a frame as a server writes it.
func serverFrame(final bool, opcode byte, payload []byte) []byte {
	if final {
		opcode |= finBit
	}
	return wsframe.Append(nil, opcode, payload)
}

// conversation is a server's bytes, and the messages that they are.
type conversation struct {
	bytes    []byte
	messages []message
}

func (c *conversation) draw(t *rapid.T) {
	payload := rapid.SliceOfN(rapid.Byte(), 0, 300)
	control := func() {
		m := message{opcode: rapid.SampledFrom([]byte{opPing, opPong}).Draw(t, "control"),
			payload: rapid.SliceOfN(rapid.Byte(), 0, maxControlBytes).Draw(t, "carried")}
		c.bytes = append(c.bytes, serverFrame(true, m.opcode, m.payload)...)
		c.messages = append(c.messages, m)
	}
	for range rapid.IntRange(1, 8).Draw(t, "messages") {
		kind := rapid.SampledFrom([]byte{opText, opBinary}).Draw(t, "kind")
		parts := rapid.SliceOfN(payload, 1, 3).Draw(t, "parts")
		if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
			parts[0] = make([]byte, rapid.SampledFrom([]int{126, 0xFFFF, 0x10000}).Draw(t, "length"))
		}
		for i, part := range parts {
			opcode := kind
			if i > 0 {
				opcode = opContinuation
			}
			c.bytes = append(c.bytes, serverFrame(i == len(parts)-1, opcode, part)...)
			if i < len(parts)-1 && rapid.Bool().Draw(t, "interrupted") {
				control()
			}
		}
		c.messages = append(c.messages, message{opcode: kind, payload: slices.Concat(parts...)})
		if rapid.Bool().Draw(t, "between") {
			control()
		}
	}
}

func TestFrameReader_ReadsOfAnySize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c conversation
		c.draw(t)
		f := frameReader{
			keepMin: rapid.Uint64Range(0, 700).Draw(t, "least"),
			keepMax: rapid.SampledFrom([]uint64{0, 100, 300, 700, maxMessageBytes}).Draw(t, "most"),
		}
		length := rapid.OneOf(rapid.Just(1), rapid.IntRange(1, 10), rapid.IntRange(1, 1000), rapid.Just(1<<20))
		cuts := rapid.SliceOfN(length, 1, 10).Draw(t, "cuts") // again and again
		var got int
		for i, rest := 0, c.bytes; len(rest) > 0; i++ {
			cut := rest[:min(cuts[i%len(cuts)], len(rest))]
			rest = rest[len(cut):]
			for len(cut) > 0 {
				passed, n := f.skipMessages(cut)
				cut = cut[n:]
				for range passed {
					n -= len(serverFrame(true, opText, c.messages[got].payload))
					checkMessage(t, &f, message{opcode: c.messages[got].opcode, size: uint64(len(c.messages[got].payload))},
						c.messages[got])
					got++
				}
				if n != 0 {
					t.Fatalf("the messages that were passed over have %d bytes less", n)
				}
				m, ok, n, err := f.next(cut)
				if err != nil {
					t.Fatal(err)
				}
				if !ok && n != len(cut) {
					t.Fatalf("%d of %d bytes are taken, and no message is complete", n, len(cut))
				}
				cut = cut[n:]
				if ok {
					checkMessage(t, &f, m, c.messages[got])
					got++
				}
			}
		}
		if got != len(c.messages) || f.inside || f.headLen > 0 || f.fragments {
			t.Fatalf("%d messages of %d; at the end: %+v", got, len(c.messages), f)
		}
	})
}

func checkMessage(t *rapid.T, f *frameReader, got, want message) {
	size := uint64(len(want.payload))
	kept := want.opcode >= opClose || size >= f.keepMin && size <= f.keepMax
	if got.opcode != want.opcode || got.size != size || (got.payload != nil) != kept {
		t.Fatalf("opcode %d, size %d, kept %v; want %d, %d, %v",
			got.opcode, got.size, got.payload != nil, want.opcode, size, kept)
	}
	if kept && !bytes.Equal(got.payload, want.payload) {
		t.Fatalf("payload %x, want %x", got.payload, want.payload)
	}
}

func TestFrameReader_RejectsProtocolViolations(t *testing.T) {
	text := serverFrame(true, opText, []byte("a"))
	masked := appendFrame(nil, opText, [4]byte{1, 2, 3, 4}, []byte("a"))
	begun := serverFrame(false, opText, make([]byte, 0xFFFF))
	for name, c := range map[string]struct {
		bytes []byte
		want  string
	}{
		"reserved bits":         {[]byte{0xC1, 0}, "reserved bits"},
		"masked":                {masked, "masked"},
		"unknown data":          {[]byte{0x83, 0}, "unknown opcode 3"},
		"unknown control":       {[]byte{0x8B, 0}, "unknown opcode 11"},
		"long control":          {serverFrame(true, opPing, make([]byte, 126)), "control frame"},
		"fragmented control":    {serverFrame(false, opClose, nil), "control frame"},
		"continuation first":    {serverFrame(true, opContinuation, nil), "out of order"},
		"second beginning":      {slices.Concat(begun, text), "out of order"},
		"large":                 {serverFrame(true, opText, make([]byte, maxMessageBytes+1))[:maxHead], "more than 16777216"},
		"larger than an int":    {[]byte{0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255}, "more than 16777216"},
		"large in many pieces":  {slices.Concat(begun, bytes.Repeat(serverFrame(false, opContinuation, make([]byte, 0xFFFF)), 256)), "more than"},
		"length in many pieces": {slices.Concat(begun, []byte{0x80, 127, 255, 255, 255, 255, 255, 255, 255, 255}), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			f := frameReader{}
			for rest := c.bytes; ; {
				_, _, n, err := f.next(rest)
				rest = rest[n:]
				if err != nil {
					if !strings.Contains(err.Error(), c.want) {
						t.Errorf("error %q, want %q in it", err, c.want)
					}
					return
				}
				if len(rest) == 0 {
					t.Fatal("it is accepted")
				}
			}
		})
	}
}

func TestFrameReader_AnyBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := frameReader{keepMin: 10, keepMax: 20}
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		for len(data) > 0 {
			_, passed := f.skipMessages(data)
			if data = data[passed:]; len(data) == 0 {
				return
			}
			_, ok, n, err := f.next(data)
			if err != nil {
				return
			}
			if n == 0 && !ok || n > len(data) {
				t.Fatalf("%d of %d bytes are taken", n, len(data))
			}
			data = data[n:]
		}
	})
}

func TestFrameReader_ReleasesLargeBuffers(t *testing.T) {
	f := frameReader{keepMax: maxMessageBytes}
	long := serverFrame(true, opText, make([]byte, 2*maxKeptBuffer))
	for _, part := range [][]byte{long[:100], long[100:], serverFrame(true, opText, nil)} {
		if _, _, _, err := f.next(part); err != nil {
			t.Fatal(err)
		}
	}
	if cap(f.partial) > maxKeptBuffer {
		t.Errorf("%d bytes are kept", cap(f.partial))
	}
}

// discard is a transport that drops all bytes.
type discard struct{}

func (discard) write([]byte) error { return nil }

// BenchmarkReceive measures the cost of a message with and without keeping payloads.
func BenchmarkReceive(b *testing.B) {
	const batch = 256
	payload := []byte(fmt.Sprintf(`{"action":"bench","sent":%d,"pad":"`, 1_700_000_000_000_000_000))
	payload = append(payload, bytes.Repeat([]byte("x"), 256-len(payload)-2)...)
	data := bytes.Repeat(serverFrame(true, opText, append(payload, `"}`...)), batch)
	for name, sent := range map[string]func([]byte) (int64, bool){
		"look=none": nil,
		"look=sent": func(p []byte) (int64, bool) { return int64(bytes.IndexByte(p, ':')), true },
	} {
		b.Run(name+"/payload=256", func(b *testing.B) {
			f := newFleet(Options{Connections: 1, Sent: sent}.withDefaults())
			c := &f.clients[0]
			c.transport = discard{}
			c.becomeReady(f.counts.began)
			b.ReportAllocs()
			for i := 0; i < b.N; i += batch {
				if err := c.receive(data, f.counts.began); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package server

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/shoal-go/shoal/manager"
)

// In whatever pieces a client's bytes arrive, the tracker is at a boundary exactly when a message is complete.
func TestFrameTracker_FindsMessageBoundaries(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	ends := map[int]bool{0: true} // offsets at which all bytes so far are whole messages
	for range 300 {
		frames := 1 + random.IntN(3)
		for i := range frames {
			opcode := byte(0)
			if i == 0 {
				opcode = 1
			}
			if i == frames-1 {
				opcode |= 0x80
			}
			stream = appendMasked(stream, opcode, payloadLength(random))
			if i == frames-1 {
				ends[len(stream)] = true
			}
			if random.IntN(3) == 0 {
				stream = appendMasked(stream, 0x89, random.IntN(126))
				ends[len(stream)] = i == frames-1
			}
		}
	}
	for range 20 {
		var tracker frameTracker
		for at := 0; at < len(stream); {
			n := min(1+random.IntN(1<<random.IntN(12)), len(stream)-at)
			ok, reason := tracker.track(stream[at:at+n], 1<<20)
			if ok < n && !ends[at+ok] || reason.Code != 0 {
				t.Fatalf("after %d bytes %d of %d are accepted: %+v", at, ok, n, reason)
			}
			for past := at + 1; past < at+ok; past++ {
				if ends[past] {
					t.Fatalf("after %d bytes %d of %d are accepted, beyond the end of a message", at, ok, n)
				}
			}
			at += ok
			if tracker.atBoundary() != ends[at] {
				t.Fatalf("after %d bytes atBoundary() = %t, want %t", at, tracker.atBoundary(), ends[at])
			}
		}
	}
}

// payloadLength returns a length, those at which the header changes more often than others.
func payloadLength(random *rand.Rand) int {
	lengths := []int{0, 1, 125, 126, 127, 300, 1<<16 - 1, 1 << 16, random.IntN(2000)}
	return lengths[random.IntN(len(lengths))]
}

func appendMasked(dst []byte, first byte, n int) []byte {
	switch {
	case n < 126:
		dst = append(dst, first, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, first, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, 0x80|127), uint64(n))
	}
	return append(dst, make([]byte, 4+n)...)
}

// trackAll tracks message after message, as reader.Read does.
func trackAll(t *frameTracker, p []byte, limit int) (n int, reason manager.CloseReason) {
	for n < len(p) {
		ok, reason := t.track(p[n:], limit)
		if n += ok; reason.Code != 0 {
			return n, reason
		}
	}
	return n, manager.CloseReason{}
}

// A header that gws must not see ends the connection with the right reason, and the bytes ahead of it are still read.
func TestFrameTracker_RefusesHeaders(t *testing.T) {
	mask := []byte{1, 2, 3, 4}
	length := func(first byte, n uint64) []byte {
		return append(binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, n), mask...)
	}
	for name, c := range map[string]struct {
		header []byte
		want   manager.CloseReason
	}{
		"top bit":               {length(0x81, 1<<63), badLength},
		"all bits":              {length(0x82, 1<<64-1), badLength},
		"control with top bit":  {length(0x89, 1<<63), badLength},
		"64 bits for 65535":     {length(0x81, 1<<16-1), longLength},
		"16 bits for 125":       {append([]byte{0x81, 0x80 | 126, 0, 125}, mask...), longLength},
		"largest positive":      {length(0x81, 1<<63-1), manager.MessageTooBig},
		"one byte too many":     {append([]byte{0x81, 0x80 | 126, 0x03, 0xe9}, mask...), manager.MessageTooBig},
		"fragments of too many": {append(appendMasked(nil, 0x01, 900), 0x80, 0x80|101), manager.CloseReason{}},
	} {
		before := appendMasked(nil, 0x81, 7)
		stream := append(append([]byte(nil), before...), c.header...)
		var tracker frameTracker
		n, reason := trackAll(&tracker, stream, 1000)
		if name == "fragments of too many" {
			n, reason = tracker.track(mask, 1000)
			if n != 0 || reason != manager.MessageTooBig {
				t.Errorf("%s: %d bytes accepted, %+v", name, n, reason)
			}
			continue
		}
		if n != len(before) || reason != c.want {
			t.Errorf("%s: %d bytes accepted, %+v; want %d, %+v", name, n, reason, len(before), c.want)
		}
	}
}

// Short fragments are counted, whole messages and long fragments are not.
func TestFrameTracker_CountsShortFragments(t *testing.T) {
	var stream []byte
	for _, f := range []struct {
		first byte
		n     int
	}{{0x81, 0}, {0x01, 0}, {0x00, 0}, {0x89, 3}, {0x00, 200}, {0x80, 5}, {0x81, 9}} {
		stream = appendMasked(stream, f.first, f.n)
	}
	var tracker frameTracker
	if trackAll(&tracker, stream, 1000); tracker.fragments != 3 {
		t.Errorf("counted %d fragments, want 3", tracker.fragments)
	}
}

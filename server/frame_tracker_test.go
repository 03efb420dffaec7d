package server

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/wsframe"
	"github.com/shoal-go/shoal/manager"
)

// The tracker is at a boundary exactly when a message is complete, for any division of the bytes into reads.
func TestFrameTracker_FindsMessageBoundaries(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	ends := map[int]bool{0: true} // offsets at which all bytes so far are whole messages
	for range 60 {
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
	isEnd := make([]bool, len(stream)+1)
	for at, end := range ends {
		isEnd[at] = end
	}
	for range 20 {
		var tracker frameTracker
		for at := 0; at < len(stream); {
			n := min(1+random.IntN(1<<random.IntN(12)), len(stream)-at)
			ok, reason := tracker.track(stream[at:at+n], 1<<20)
			if ok < n && !isEnd[at+ok] || reason.Code != 0 {
				t.Fatalf("after %d bytes %d of %d are accepted: %+v", at, ok, n, reason)
			}
			for past := at + 1; past < at+ok; past++ {
				if isEnd[past] {
					t.Fatalf("after %d bytes %d of %d are accepted, beyond the end of a message", at, ok, n)
				}
			}
			at += ok
			if tracker.atBoundary() != isEnd[at] {
				t.Fatalf("after %d bytes atBoundary() = %t, want %t", at, tracker.atBoundary(), isEnd[at])
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
	return wsframe.AppendMasked(dst, first, [4]byte{}, make([]byte, n))
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

// extendable reports whether text is the beginning of a valid one.
func extendable(text []byte) bool {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			return !utf8.FullRune(text)
		}
		text = text[size:]
	}
	return true
}

// However a text message is split into fragments and reads, the first byte that makes it invalid ends the connection,
// and no other byte does.
func TestFrameTracker_FindsInvalidTextAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SampledFrom([]string{
			"a", "é", "€", "𝄞", "\xf4\x8f\xbf\xbf", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "\xe2\x82", "\x80",
		})
		fragments := rapid.SliceOfN(rapid.StringOfN(rapid.Rune(), 0, 3, -1), 1, 4).Draw(t, "fragments")
		for i := range fragments {
			fragments[i] += piece.Draw(t, "piece")
		}
		opcode := rapid.SampledFrom([]byte{1, 2}).Draw(t, "opcode")
		var tracker frameTracker
		var message []byte
		for i, fragment := range fragments {
			mask := [4]byte{1, 0xA5, 0, 0xFF}
			first := byte(0)
			if i == 0 {
				first = opcode
			}
			header := append([]byte{first, 0x80 | byte(len(fragment))}, mask[:]...)
			if n, reason := tracker.track(header, 1<<10); n != len(header) || reason.Code != 0 {
				t.Fatalf("header of fragment %d: %d, %v", i, n, reason)
			}
			for k := range len(fragment) {
				message = append(message, fragment[k])
				_, reason := tracker.track([]byte{fragment[k] ^ mask[k&3]}, 1<<10)
				want := opcode == 2 || extendable(message)
				if (reason.Code == 0) != want {
					t.Fatalf("after %q: %v, want valid: %t", message, reason, want)
				}
				if !want {
					return
				}
			}
			ping := []byte{0x89, 0x81, 1, 2, 3, 4, 0xff}
			if n, reason := tracker.track(ping, 1<<10); n != len(ping) || reason.Code != 0 {
				t.Fatalf("a ping between fragments: %d, %v", n, reason)
			}
		}
	})
}

// A message that arrives in one read is checked once, by gws.
func TestFrameTracker_LeavesCompleteMessagesAlone(t *testing.T) {
	var tracker frameTracker
	frame := []byte("\x81\x82\x00\x00\x00\x00\xff\xfe")
	if n, reason := tracker.track(frame, 1<<10); n != len(frame) || reason.Code != 0 || tracker.utf8.masked != 0 {
		t.Errorf("%d bytes, %v, %d checked", n, reason, tracker.utf8.masked)
	}
}

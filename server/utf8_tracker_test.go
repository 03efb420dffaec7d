package server

import (
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

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

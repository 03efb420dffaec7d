package server

import (
	"unicode/utf8"

	"github.com/shoal-go/shoal/manager"
)

// invalidText is why a connection is closed whose text message cannot become valid UTF-8 any more (RFC 6455, 8.1).
var invalidText = manager.CloseReason{Code: 1007, Text: "Text is not valid UTF-8"}

// utf8Tracker finds invalid UTF-8 in a text message that has not arrived completely, as soon as its bytes are there. A
// message that arrives at once is left to gws, which checks it as a whole: only messages in several reads or fragments
// cost more than that. The zero value stands ahead of a message.
type utf8Tracker struct {
	// text: the current message is a text message.
	text bool
	// mask and masked are the key of the current frame and the number of its payload bytes so far.
	mask   [4]byte
	masked int
	// rest holds the first have bytes of a character that has not arrived completely.
	rest [utf8.UTFMax]byte
	have int
}

// begin begins a message.
func (u *utf8Tracker) begin(text bool) { u.text, u.have = text, 0 }

// frame begins a frame of the message.
func (u *utf8Tracker) frame(mask []byte) {
	copy(u.mask[:], mask)
	u.masked = 0
}

// valid takes the next bytes of the payload into account and reports whether the message can still be valid.
func (u *utf8Tracker) valid(payload []byte) bool {
	if !u.text {
		return true
	}
	var room [256]byte
	for len(payload) > 0 {
		n := copy(room[:], u.rest[:u.have])
		for n < len(room) && len(payload) > 0 {
			room[n] = payload[0] ^ u.mask[u.masked&3]
			u.masked++
			n++
			payload = payload[1:]
		}
		whole := n - incomplete(room[:n])
		if !utf8.Valid(room[:whole]) {
			return false
		}
		u.have = copy(u.rest[:], room[whole:n])
	}
	return true
}

// incomplete returns the number of bytes at the end of text that can become a character by further bytes.
func incomplete(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		end := text[len(text)-n:]
		if utf8.RuneStart(end[0]) {
			if utf8.FullRune(end) {
				return 0
			}
			return n
		}
	}
	return 0
}

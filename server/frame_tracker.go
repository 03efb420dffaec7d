package server

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/shoal-go/shoal/manager"
)

// frameTracker follows a client's bytes from frame to frame (RFC 6455, 5.2), ahead of gws. It knows where a message
// ends, which gws does not report, and finds the frames that gws must not see: lengths that it would turn negative,
// and messages for which it would allocate more than the client may send. The zero value stands ahead of a message.
//
// It also finds text that is not UTF-8 before its message is complete. All other violations are left to gws: after them
// the tracker may be in any state, since the connection ends.
type frameTracker struct {
	// header holds the first have bytes of a header that has not arrived completely.
	header [maxFrameHeader]byte
	have   uint8
	// payload is the number of bytes of the current frame that have not arrived.
	payload uint64
	// message is the size of the current message's frames so far.
	message uint64
	// fragmented is true between the first and the last frame of a message.
	fragmented bool
	// data is true within a text or binary frame, whose payload utf8 follows.
	data bool
	utf8 utf8Tracker
	// fragments counts short fragments that have not been charged to the client's rate.
	fragments int
}

const (
	// maxFrameHeader is the longest header that a client sends: two bytes, a 64-bit length and a mask.
	maxFrameHeader = 14
	// shortFragment is the payload below which a fragment counts as a message of its own against the client's rate.
	// Longer ones are bounded by the size of a message.
	shortFragment = 128
)

// Reasons to close a connection because of a frame.
var (
	badLength  = manager.CloseReason{Code: 1002, Text: "Invalid frame length"}
	longLength = manager.CloseReason{Code: 1002, Text: "Frame length not in its shortest form"}
)

// atBoundary reports whether the client's bytes so far are whole messages.
func (t *frameTracker) atBoundary() bool { return t.have == 0 && t.payload == 0 && !t.fragmented }

// track takes the next bytes into account, up to the end of a message: its handling may change the limit of the next
// one. It returns the number of bytes that gws may see. If a header violates the protocol or announces a message of
// more than limit bytes, they end ahead of that header, or ahead of text that is not UTF-8, and reason is why the
// connection must be closed.
func (t *frameTracker) track(p []byte, limit int) (n int, reason manager.CloseReason) {
	for n < len(p) {
		if skip := min(t.payload, uint64(len(p)-n)); skip > 0 {
			t.payload -= skip
			part := p[n : n+int(skip)] //nolint:gosec // at most len(p)
			if t.atBoundary() {
				return n + len(part), manager.CloseReason{} // gws checks the whole message
			}
			if t.data && !t.utf8.valid(part) {
				return n, invalidText
			}
			n += len(part)
			continue
		}
		t.header[t.have] = p[n]
		t.have++
		n++
		if t.have < 2 || int(t.have) < t.headerLen() {
			continue
		}
		if reason := t.begin(limit); reason.Code != 0 {
			return max(0, n-int(t.have)), reason
		}
		t.have = 0
		if t.atBoundary() {
			return n, manager.CloseReason{}
		}
	}
	return n, manager.CloseReason{}
}

// The second byte of a header holds a length up to 125, or the size of the length field that follows.
const (
	masked     = 0x80
	lengthBits = 0x7F
	length16   = 126
	length64   = 127
)

func (t *frameTracker) headerLen() int {
	n := 2
	switch t.header[1] & lengthBits {
	case length16:
		n += 2
	case length64:
		n += 8
	}
	if t.header[1]&masked != 0 {
		n += 4
	}
	return n
}

// begin takes a complete header into account, or returns the reason to close the connection.
func (t *frameTracker) begin(limit int) manager.CloseReason {
	const final, opcode, text, control = 0x80, 0x0F, 0x01, 0x08
	var shortest uint64
	switch n := t.header[1] & lengthBits; n {
	case length16:
		t.payload, shortest = uint64(binary.BigEndian.Uint16(t.header[2:])), length16
	case length64:
		t.payload, shortest = binary.BigEndian.Uint64(t.header[2:]), 1<<16
	default:
		t.payload = uint64(n)
	}
	switch {
	case t.payload>>63 != 0:
		return badLength
	case t.payload < shortest:
		return longLength
	case t.header[0]&opcode >= control: // control frames may stand between the frames of a message
		t.data = false
		return manager.CloseReason{}
	}
	last := t.header[0]&final != 0
	if (t.fragmented || !last) && t.payload < shortFragment {
		t.fragments++
	}
	if !t.fragmented {
		t.message = 0
		t.utf8.begin(t.header[0]&opcode == text)
	}
	t.data = t.header[1]&masked != 0 // else gws refuses it
	if t.data {
		t.utf8.frame(t.header[t.headerLen()-4:])
	}
	t.message += t.payload
	t.fragmented = !last
	if t.message > uint64(limit) { //nolint:gosec // limit is not negative
		return manager.MessageTooBig
	}
	return manager.CloseReason{}
}

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

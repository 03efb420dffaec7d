// Package message makes the messages that every system under test publishes: the protocol's upload_progress,
// of an exact size, with the time at which it was meant to be sent and a number in its text.
package message

import (
	"bytes"
	"strconv"
)

// MinSize is the smallest size in bytes that has room for every channel name of at most 7 bytes.
const MinSize = 256

// The parts around the two texts of a message. It is the wire form that the manager gives the message, byte
// for byte, so that every system carries the same load; a test compares the two. The time of sending stands in the second text.
const (
	head = `{"action":"upload_progress","payload":{"upload_id":"`
	neck = `","status":"analyzing","stage":"vision_analysis","progress_percent":42,"message":"`
	tail = `","error_message":null,"description_audit_score":null},"timestamp":"2026-01-01T00:00:00Z"}`
)

// base is the base of the numbers in the text, which have to be short.
const base = 36

// textMark precedes the text of a message, inside a system's own envelope too.
const textMark = `"message":"`

// Message is one message to be published. It is a value; its methods may be called from any goroutine.
type Message struct {
	// Channel is the upload that it is published to, a plain name of at most 7 bytes.
	Channel string
	// Sent is when it was meant to be sent, in nanoseconds of Unix time.
	Sent int64
	// Number is for the receiver too: which message it is, or by how many nanoseconds it was published late.
	Number uint64
	// Size is the length of the JSON in bytes, at least MinSize.
	Size int
}

// Channel returns the name of channel i.
func Channel(i int) string { return "u" + strconv.Itoa(i) }

// AppendJSON appends the message's JSON to dst and returns the extended slice.
func (m Message) AppendJSON(dst []byte) []byte { return m.append(dst, head, neck, tail) }

// JSON returns the message's JSON in a slice of its own.
func (m Message) JSON() []byte { return m.AppendJSON(make([]byte, 0, m.Size)) }

// AppendEvent appends a message of the same size and text that is an event, which must not be left out.
func (m Message) AppendEvent(dst []byte) []byte {
	return m.append(dst, `{"action":"upload_noted","upload_id":"`, `",`+textMark, `"}`)
}

// Text returns the message's text: send time, number, and padding up to the size.
func (m Message) Text() string {
	return string(m.appendText(make([]byte, 0, m.Size), m.Size-len(head)-len(m.Channel)-len(neck)-len(tail)))
}

// append appends a message with these parts around its channel and its text.
func (m Message) append(dst []byte, head, neck, tail string) []byte {
	begin := len(dst)
	dst = append(append(append(dst, head...), m.Channel...), neck...)
	return append(m.appendText(dst, m.Size-(len(dst)-begin)-len(tail)), tail...)
}

func (m Message) appendText(dst []byte, size int) []byte {
	end := len(dst) + size
	dst = append(strconv.AppendInt(dst, m.Sent, base), ' ')
	dst = append(strconv.AppendUint(dst, m.Number, base), ' ')
	for len(dst) < end {
		dst = append(dst, '.')
	}
	return dst
}

// Read reads from a payload, in any envelope, when its first message was meant to be sent, in nanoseconds of Unix time,
// and its number. It is false for a payload without a message.
func Read(payload []byte) (sent int64, n uint64, ok bool) {
	at := bytes.Index(payload, []byte(textMark))
	if at < 0 {
		return 0, 0, false
	}
	sent, rest, _ := number(payload[at+len(textMark):])
	value, _, ok := number(rest)
	return sent, uint64(value), ok //nolint:gosec // as it was written
}

// SentAt is Read without the number.
func SentAt(payload []byte) (int64, bool) {
	sent, _, ok := Read(payload)
	return sent, ok
}

// number reads a number that ends in a space. It is called for every message that is received, and makes no
// garbage.
func number(text []byte) (value int64, rest []byte, ok bool) {
	const longest = 13
	for i, c := range text {
		switch {
		case c == ' ' && i > 0:
			return value, text[i+1:], true
		case i >= longest:
			return 0, nil, false
		case c >= '0' && c <= '9':
			value = value*base + int64(c-'0')
		case c >= 'a' && c <= 'z':
			value = value*base + int64(c-'a') + 10
		default:
			return 0, nil, false
		}
	}
	return 0, nil, false
}

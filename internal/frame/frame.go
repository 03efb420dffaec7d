// Package frame encodes messages: each once, for all its receivers.
//
// A Frame holds the parts of its wire forms instead of a buffer for each form. The payload is in memory once, and
// joining the parts is a copy of a few hundred bytes, which a batching writer makes in any case.
package frame

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"
)

// Opcode is the kind of a WebSocket frame (RFC 6455, 5.2).
type Opcode byte

// The opcodes that a server sends.
const (
	Text   Opcode = 0x1
	Binary Opcode = 0x2
	Close  Opcode = 0x8
	Ping   Opcode = 0x9
	Pong   Opcode = 0xA
)

// Raw marks bytes that are written to an event stream unchanged. WebSockets do not have this opcode.
const Raw Opcode = 0xFF

// Class determines how a message is treated when a connection's queue is full or its client is slow.
type Class uint8

const (
	// Event is never dropped: where the queue cannot hold it, the connection is closed.
	Event Class = iota
	// State may be replaced, while it is queued, by a newer state with the same upload and state key.
	State
	// Terminal is an Event after which no older State of its upload is delivered.
	Terminal
	// Control goes ahead of waiting data and does not count against the queue's bounds.
	Control
)

// Outcome is the result of sending one frame to one connection. The zero value is invalid.
type Outcome uint8

const (
	// Queued means that the frame is in the connection's queue, or on its way.
	Queued Outcome = iota + 1
	// Conflated means that the frame is in the queue in the place of an older state of the same upload.
	Conflated
	// Dropped means that the connection is closing, or could not hold the frame and closes because of it.
	Dropped
)

// Variant is the form in which a connection gets its frames.
type Variant uint8

const (
	// Base is the form without recovery: the payload as it was published.
	Base Variant = iota
	// V1 is the form of the subprotocol shoal.v1: the payload with its offset, and with the number of
	// messages that it replaced.
	V1
)

// maxHeader is the longest header that a server sends: two bytes and a 64-bit length.
const maxHeader = 10

// offsetField, skippedField and uploadField are the top-level fields that V1 adds, ahead of their values.
const (
	offsetField  = `,"offset":`
	skippedField = `,"skipped":`
	uploadField  = `,"upload_id":"`
)

// maxDigits is the length of the largest uint64 in decimal.
const maxDigits = 20

// A Frame is immutable and may be read from any number of goroutines.
type Frame struct {
	body     []byte
	uploadID string
	stateKey string
	// epoch is the run of offsets that offset belongs to, "" if it is not known.
	epoch  string
	offset uint64
	opcode Opcode
	class  Class
	// v1Only and baseOnly: connections of the other variant do not get this frame.
	v1Only, baseOnly bool
	// made is when ForUpload made the frame, in microseconds on clock, 0 for other frames.
	made uint32
	// unnamed is the length of `,"upload_id":"…"`, which V1 adds beside an offset where the body does not name the upload.
	unnamed uint16
	// tail is `,"offset":N`, ready to stand in the place of the payload's closing brace.
	tailLen uint8
	tail    [len(offsetField) + maxDigits]byte
	// acknowledges: epoch and offset are the position that follows from an acknowledgement, see Start.
	acknowledges bool
	// traced: see Traced.
	traced bool
}

// Start is the position ahead of the messages that follow an acknowledgement: a client that loses its connection right
// after it recovers from there.
type Start struct {
	Epoch  string
	Offset uint64
}

// New returns a frame that is the same for every variant. The frame takes over body: the caller must not
// change it afterwards.
func New(op Opcode, class Class, body []byte) *Frame {
	return &Frame{body: body, opcode: op, class: class}
}

// NewV1 returns the frame of a text message that exists on shoal.v1 only. The frame takes over body.
func NewV1(class Class, body []byte) *Frame {
	return &Frame{body: body, opcode: Text, class: class, v1Only: true}
}

// NewV1ForUpload is like NewV1 for a text message about an upload that keeps its place among the upload's messages.
func NewV1ForUpload(uploadID string, class Class, body []byte) *Frame {
	return &Frame{body: body, uploadID: uploadID, opcode: Text, class: class, v1Only: true}
}

// NewAcknowledgement is like NewV1ForUpload for the acknowledgement of a subscription, which announces a position.
func NewAcknowledgement(uploadID string, start Start, body []byte) *Frame {
	f := NewV1ForUpload(uploadID, Event, body)
	f.epoch, f.offset, f.acknowledges = start.Epoch, start.Offset, true
	return f
}

// Message is a message of an upload.
type Message struct {
	UploadID string
	Class    Class
	// StateKey distinguishes the states of one upload: a newer state replaces only a queued one with the same key.
	StateKey string
	// Epoch and Offset are the message's position in the upload; an offset of 0 means that it has none.
	Epoch  string
	Offset uint64
	// Body is one JSON object without white space around it, with at least one member.
	Body []byte
	// NamesUpload: the body contains the upload id. Otherwise V1 adds it to messages with an offset.
	NamesUpload bool
}

// ForUpload returns the frame of a message of an upload. The frame takes over the body.
func ForUpload(m Message) *Frame {
	f := &Frame{
		body: m.Body, uploadID: m.UploadID, stateKey: m.StateKey, epoch: m.Epoch, offset: m.Offset, opcode: Text,
		class: m.Class, made: clock(),
	}
	if m.Offset > 0 {
		t := append(f.tail[:0], offsetField...)
		t = strconv.AppendUint(t, m.Offset, 10)
		f.tailLen = uint8(len(t)) //nolint:gosec // at most len(tail)
		if id := m.UploadID; !m.NamesUpload {
			f.unnamed = uint16(len(uploadField) + len(id) + strings.Count(id, `"`) + //nolint:gosec // ids are short
				strings.Count(id, `\`) + len(`"`))
		}
	}
	return f
}

// MaxReasonBytes is the longest reason of a close frame: a control frame holds 125 bytes, two of them are the code.
const MaxReasonBytes = 123

// CutReason returns the part of a reason that a close frame can hold. It must be valid UTF-8: the rest of a rune that
// was cut is removed too.
func CutReason(reason string) string {
	return strings.ToValidUTF8(reason[:min(len(reason), MaxReasonBytes)], "")
}

// NewClose returns a close frame with the reason that CutReason returns.
func NewClose(code uint16, reason string) *Frame {
	reason = CutReason(reason)
	body := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(reason)), code)
	return New(Close, Control, append(body, reason...))
}

// Class returns the message's class.
func (f *Frame) Class() Class { return f.class }

// Opcode returns the frame's opcode.
func (f *Frame) Opcode() Opcode { return f.opcode }

// UploadID returns the upload that the message belongs to, or "" if it belongs to none.
func (f *Frame) UploadID() string { return f.uploadID }

// StateKey returns the key that the message has among the states of its upload.
func (f *Frame) StateKey() string { return f.stateKey }

// Offset returns the message's offset in its upload, or 0 if it has none.
func (f *Frame) Offset() uint64 {
	if f.acknowledges {
		return 0
	}
	return f.offset
}

// Epoch returns the run of offsets that Offset belongs to, or that an acknowledgement announces, else "".
func (f *Frame) Epoch() string { return f.epoch }

// start is the zero of clock. It is monotonic: steps of the wall clock do not change an age.
var start = time.Now()

// clock returns the microseconds since the start of the process, modulo 2^32 and never 0.
func clock() uint32 { return max(uint32(time.Since(start)/time.Microsecond), 1) } //nolint:gosec // wraps on purpose

// Age returns the time since ForUpload made the frame, and false for a frame of another kind. It is right up to an
// hour, after which it begins at 0 again.
func (f *Frame) Age() (age time.Duration, ok bool) {
	return time.Duration(clock()-f.made) * time.Microsecond, f.made != 0
}

// Start returns the position ahead of the messages that follow an acknowledgement, and false for any other frame.
func (f *Frame) Start() (at Start, ok bool) {
	if !f.acknowledges {
		return Start{}, false
	}
	return Start{f.epoch, f.offset}, true
}

// For reports whether connections of the variant get this frame.
func (f *Frame) For(v Variant) bool {
	if v == V1 {
		return !f.baseOnly
	}
	return !f.v1Only
}

// V1Only returns a copy of the frame that only connections of shoal.v1 get.
func (f *Frame) V1Only() *Frame {
	c := *f
	c.v1Only = true
	return &c
}

// BaseOnly returns a copy of the frame that only connections of the base variant get.
func (f *Frame) BaseOnly() *Frame {
	c := *f
	c.baseOnly = true
	return &c
}

// WithTrace returns a copy of the frame for which Traced reports true.
func (f *Frame) WithTrace() *Frame {
	c := *f
	c.traced = true
	return &c
}

// Traced reports whether the manager wants to know when a connection has handed the frame to the kernel.
func (f *Frame) Traced() bool { return f.traced }

// Body returns the payload as it was published. The caller must not change it.
func (f *Frame) Body() []byte { return f.body }

// Size returns the length in bytes of the longest wire form without a skipped count, by which queues count the frame.
func (f *Frame) Size() int {
	n := len(f.body) + int(f.tailLen) + int(f.unnamed)
	return n + headerLen(n)
}

// Append appends the frame's wire form, a WebSocket frame, to dst and returns the extended slice. skipped is the number
// of messages that this one replaced in the receiver's queue; only V1 shows it.
func (f *Frame) Append(dst []byte, v Variant, skipped uint32) []byte {
	if f.plain(v, skipped) {
		dst = AppendHeader(dst, f.opcode, len(f.body))
		return append(dst, f.body...)
	}
	var room [len(skippedField) + maxDigits]byte
	end := appendSkipped(room[:0], skipped)
	dst = AppendHeader(dst, f.opcode, len(f.body)+int(f.tailLen)+int(f.unnamed)+len(end))
	return f.appendFields(dst, end)
}

// AppendPayload is like Append without the header of a WebSocket frame, for other transports: with V1 the JSON has the
// message's offset and the number of skipped messages, with Base it is Body.
func (f *Frame) AppendPayload(dst []byte, v Variant, skipped uint32) []byte {
	if f.plain(v, skipped) {
		return append(dst, f.body...)
	}
	var room [len(skippedField) + maxDigits]byte
	return f.appendFields(dst, appendSkipped(room[:0], skipped))
}

// plain reports whether the payload of a wire form is the body.
func (f *Frame) plain(v Variant, skipped uint32) bool {
	return v == Base || f.tailLen == 0 && skipped == 0
}

func appendSkipped(dst []byte, skipped uint32) []byte {
	if skipped == 0 {
		return dst
	}
	return strconv.AppendUint(append(dst, skippedField...), uint64(skipped), 10)
}

// appendFields appends the body with the fields that V1 adds; end holds the last of them.
func (f *Frame) appendFields(dst, end []byte) []byte {
	dst = append(dst, f.body[:len(f.body)-1]...) // all but the closing brace
	dst = append(dst, f.tail[:f.tailLen]...)
	if f.unnamed > 0 {
		dst = appendUploadField(dst, f.uploadID)
	}
	dst = append(dst, end...)
	return append(dst, '}')
}

// AppendHeader appends the header of a final, unmasked frame with n bytes of payload.
func AppendHeader(dst []byte, op Opcode, n int) []byte {
	const final = 0x80
	switch {
	case n < 126:
		return append(dst, final|byte(op), byte(n)) //nolint:gosec // less than 126
	case n < 1<<16:
		dst = append(dst, final|byte(op), 126)
		return binary.BigEndian.AppendUint16(dst, uint16(n))
	default:
		dst = append(dst, final|byte(op), 127)
		return binary.BigEndian.AppendUint64(dst, uint64(n))
	}
}

func headerLen(n int) int {
	switch {
	case n < 126:
		return 2
	case n < 1<<16:
		return 4
	default:
		return maxHeader
	}
}

// appendUploadField appends the member that names an upload. An id has no control characters, so the quote and the
// backslash alone need an escape.
func appendUploadField(dst []byte, uploadID string) []byte {
	dst = append(dst, uploadField...)
	for i := range len(uploadID) {
		if b := uploadID[i]; b == '"' || b == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, uploadID[i])
	}
	return append(dst, '"')
}

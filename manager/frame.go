package manager

import (
	"bytes"
	"strconv"

	"github.com/shoal-go/shoal/internal/frame"
)

// Frame is an encoded message, immutable and shared by all its receivers. A Conn uses these methods; slices that they
// return must not be changed, and AppendPayload does not allocate if dst has room.
//
//	Body() []byte      the message's JSON as it was published
//	AppendPayload(dst []byte, v Variant, skipped uint32) []byte
//	                   appends the message in one of its forms: with VariantV1 the JSON has the offset and, if it is not
//	                   0, the number of skipped states that this one replaced in the connection's queue
//	Size() int         bytes that the message counts for in a queue
//	For(v Variant) bool
//	                   whether a connection of that form gets the message; others must ignore it
//	Class() Class      ClassEvent, ClassState, ClassTerminal or ClassControl
//	StateKey() string  what distinguishes the states of an upload, apart from which a newer one replaces an older one
//	UploadID() string  the upload that the message belongs to, "" if none
//	Offset() uint64    the message's offset in its upload, 0 if it has none
//	Epoch() string     the run of offsets that the offset belongs to, or that an acknowledgement announces, else ""
//	Traced() bool      whether the connection calls the function of Manager.Written once it has written the message
//	Opcode() Opcode    OpcodeText, or OpcodeBinary for Client.SendBinary
type Frame = frame.Frame

// Class decides what may happen to a message while a connection's queue is under pressure.
type Class = frame.Class

const (
	// ClassEvent messages are never dropped: a connection whose queue cannot hold one is closed.
	ClassEvent = frame.Event
	// ClassState messages may be replaced, while they are queued, by a newer state of the same upload with
	// the same key: see ActionClass.
	ClassState = frame.State
	// ClassTerminal messages are events after which no older state of their upload is delivered.
	ClassTerminal = frame.Terminal
	// ClassControl messages precede queued data and do not count against the limits of the queue.
	ClassControl = frame.Control
)

// Variant is the form in which a connection gets its messages.
type Variant = frame.Variant

const (
	// VariantBase is the form without positions: messages as they were published.
	VariantBase = frame.Base
	// VariantV1 is the form of shoal.v1: messages with their offset, and acknowledgements.
	VariantV1 = frame.V1
)

// Opcode is the kind of a WebSocket frame.
type Opcode = frame.Opcode

// The opcodes of messages.
const (
	OpcodeText   = frame.Text
	OpcodeBinary = frame.Binary
)

// Outcome is the result of sending one message to one connection. The zero value is no outcome: it counts as Dropped.
type Outcome = frame.Outcome

const (
	// Queued means that the message is in the connection's queue, or on its way.
	Queued = frame.Queued
	// Conflated means that the message is in the queue in the place of an older state of the same upload.
	Conflated = frame.Conflated
	// Dropped means that the connection is closing, or could not hold the message and closes because of it.
	Dropped = frame.Dropped
)

// Delivery counts the outcomes of one message at all its target connections.
type Delivery struct {
	Queued    int
	Conflated int
	Dropped   int
}

// count adds one outcome.
func (d *Delivery) count(o Outcome) {
	switch o {
	case Queued:
		d.Queued++
	case Conflated:
		d.Conflated++
	default:
		d.Dropped++
	}
}

// sum returns the number of messages.
func (d *Delivery) sum() int { return d.Queued + d.Conflated + d.Dropped }

// add adds another delivery's counts.
func (d *Delivery) add(o Delivery) {
	d.Queued += o.Queued
	d.Conflated += o.Conflated
	d.Dropped += o.Dropped
}

// subscribedFrame acknowledges a subscription on shoal.v1. It is queued behind the frames queued before it: the
// messages after it continue from its position. after is the position ahead of the messages that follow it; expired
// says that none follows because the newest one is no longer held.
func subscribedFrame(uploadID string, pos Position, recovered bool, after Position, expired bool) *Frame {
	var room [usualBytes]byte
	b := append(room[:0], `{"action":"subscribed","upload_id":`...)
	b = append(appendString(b, uploadID), ',')
	b = appendState(b, pos, recovered, expired)
	return frame.NewAcknowledgement(uploadID, frame.Start(after), bytes.Clone(append(b, '}')))
}

// resumedFrame is the answer to a resume, in its order.
func resumedFrame(answer []resumedUpload) *Frame {
	var room [usualBytes]byte
	b := append(room[:0], `{"action":"resumed","uploads":{`...)
	for i := range answer {
		a := &answer[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, a.uploadID), `:{`...)
		b = append(appendState(b, a.now, a.recovered, len(a.frames) == 0), '}')
	}
	return frame.NewV1(frame.Event, bytes.Clone(append(b, `}}`...)))
}

// appendState appends the fields that say where an upload stands. A client that has not recovered waits for the newest
// message, unless the acknowledgement says that it has expired.
func appendState(b []byte, pos Position, recovered, expired bool) []byte {
	b = appendString(append(b, `"epoch":`...), pos.Epoch)
	b = strconv.AppendUint(append(b, `,"offset":`...), pos.Offset, 10)
	b = strconv.AppendBool(append(b, `,"recovered":`...), recovered)
	if expired && !recovered && pos.Offset > 0 {
		b = append(b, `,"expired":true`...)
	}
	return b
}

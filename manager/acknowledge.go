package manager

import (
	"bytes"
	"strconv"

	"github.com/shoal-go/shoal/internal/frame"
)

// subscribedFrame acknowledges a subscription on shoal.v1. It is queued behind the frames queued before it: the
// messages after it continue from its position. after is the position ahead of the messages that follow it.
func subscribedFrame(uploadID string, pos Position, recovered bool, after Position) *Frame {
	var room [usualBytes]byte
	b := append(room[:0], `{"action":"subscribed","upload_id":`...)
	b = append(appendString(b, uploadID), ',')
	b = appendState(b, pos, recovered)
	return frame.NewAcknowledgement(uploadID, frame.Start(after), bytes.Clone(append(b, '}')))
}

// resumedFrame is the answer to a resume, in its order.
func resumedFrame(answer []resumedUpload) *Frame {
	var room [usualBytes]byte
	b := append(room[:0], `{"action":"resumed","uploads":{`...)
	for i, a := range answer {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, a.uploadID), `:{`...)
		b = append(appendState(b, a.now, a.recovered), '}')
	}
	return frame.NewV1(frame.Event, bytes.Clone(append(b, `}}`...)))
}

// appendState appends the fields that say where an upload stands.
func appendState(b []byte, pos Position, recovered bool) []byte {
	b = appendString(append(b, `"epoch":`...), pos.Epoch)
	b = strconv.AppendUint(append(b, `,"offset":`...), pos.Offset, 10)
	return strconv.AppendBool(append(b, `,"recovered":`...), recovered)
}

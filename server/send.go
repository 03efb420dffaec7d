package server

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/outbox"
	"github.com/shoal-go/shoal/manager"
)

// SendText queues a text message, which must be valid UTF-8. The data is copied.
func (c *Client) SendText(data []byte) manager.Outcome { return c.sendOwn(frame.Text, data) }

// SendBinary queues a binary message. The data is copied. An event stream carries text only: there it is dropped.
func (c *Client) SendBinary(data []byte) manager.Outcome {
	if c.events != nil {
		return manager.Dropped
	}
	return c.sendOwn(frame.Binary, data)
}

func (c *Client) sendOwn(op frame.Opcode, data []byte) manager.Outcome {
	return c.Send(frame.New(op, frame.Event, append([]byte(nil), data...)))
}

// Send queues an encoded message. A message that the connection must not get, because it exists on shoal.v1 only, the
// connection's own claims do not allow its upload or its event stream does not name the upload, counts as queued: the
// client misses nothing.
func (c *Client) Send(f *manager.Frame) manager.Outcome {
	if c.server == nil {
		return manager.Dropped // a zero Client, which has no connection
	}
	if !c.wants(f) {
		return manager.Queued
	}
	c.sendSuccess()
	return c.out.Send(f)
}

// wants reports whether the connection gets a message.
func (c *Client) wants(f *manager.Frame) bool {
	if !f.For(c.variant()) {
		return false
	}
	if id := c.allowed.Load(); id != nil && f.UploadID() != "" && !id.allows(f.UploadID()) {
		return false
	}
	return c.events == nil || c.events.accepts(f)
}

// SendDeferred implements [manager.Flusher].
func (c *Client) SendDeferred(f *manager.Frame) (o manager.Outcome, flush bool) {
	if c.server == nil || !c.wants(f) {
		return c.Send(f), false
	}
	c.sendSuccess()
	return c.out.SendDeferred(f)
}

// Flush implements [manager.Flusher].
func (c *Client) Flush() { c.out.Flush() }

// Replay queues stored messages, which are written at the client's pace.
func (c *Client) Replay(r manager.Replay) manager.Outcome {
	if !c.AllowsUpload(r.UploadID) {
		return manager.Queued // subscribed by another connection of the user
	}
	if c.events != nil && !c.events.acceptsReplay(r) {
		return manager.Queued
	}
	c.sendSuccess()
	return c.out.Recover(outbox.Replay{
		UploadID: r.UploadID, Frames: r.Frames, Snapshot: r.Snapshot, Source: r.Source,
	})
}

// CancelReplay drops the unwritten messages of an upload's replays.
func (c *Client) CancelReplay(uploadID string) { c.out.CancelRecovery(uploadID) }

// HoldReplays delays replays until ReleaseReplays.
func (c *Client) HoldReplays() { c.out.Hold() }

// ReleaseReplays queues the answer and then the replays since HoldReplays.
func (c *Client) ReleaseReplays(answer *manager.Frame) {
	if !answer.For(c.variant()) {
		answer = nil
	}
	c.out.Release(answer)
}

// retry_after_ms is drawn between reconnectMin and reconnectMax, so that clients do not all reconnect in the same
// instant.
const (
	reconnectMin = 250 * time.Millisecond
	reconnectMax = 5 * time.Second
)

// overflowVariants is the number of prepared overflow frames, each with its own retry_after_ms. They are encoded once
// and shared, because one per connection would take memory.
const overflowVariants = 64

// overflowFrames returns the frames that an outbox sends when it overflows, for base and shoal.v1 connections and for
// event streams.
func overflowFrames() (base []*frame.Frame, v1, events [overflowVariants][]*frame.Frame) {
	end, lastEvent := closeFrame(manager.SlowConsumer), closeEvent(manager.SlowConsumer)
	for i := range v1 {
		v1[i] = []*frame.Frame{reconnectFrame(), end}
		events[i] = []*frame.Frame{reconnectEvent(), lastEvent}
	}
	return []*frame.Frame{end}, v1, events
}

// onOverflow unregisters a connection whose client is too slow, as Close does, and returns its last frames. The outbox
// calls it with locks held, of which setClosing needs some.
func (c *Client) onOverflow() []*frame.Frame {
	s := c.server
	s.clients.Go(func() { // c itself has not been released
		if c.setClosing(manager.SlowConsumer) {
			c.unregister()
		}
	})
	switch {
	case c.events != nil:
		return s.overflowEvents[rand.IntN(len(s.overflowEvents))]
	case c.v1:
		return s.overflowV1[rand.IntN(len(s.overflowV1))]
	}
	return s.overflowBase
}

// closeFrame returns the frame that tells the client why the connection ends.
func (c *Client) closeFrame(reason manager.CloseReason) *frame.Frame {
	if c.events != nil {
		return closeEvent(reason)
	}
	return closeFrame(reason)
}

func closeFrame(reason manager.CloseReason) *frame.Frame {
	return frame.NewClose(reason.Code, reason.Text)
}

// closeEvent returns the last event of a stream. It has a type of its own, so that no message of an application can be
// taken for it.
func closeEvent(reason manager.CloseReason) *frame.Frame {
	data := encode(struct {
		Code   uint16 `json:"code"`
		Reason string `json:"reason"`
	}{reason.Code, reason.Text})
	return rawFrame(append(append([]byte("event: close\ndata: "), data...), '\n', '\n'))
}

// reconnectEvent returns the reconnect message of an event stream. Its retry field has a browser follow it.
func reconnectEvent() *frame.Frame {
	after := retryAfterMillis()
	return rawFrame(fmt.Appendf(nil, "retry: %d\ndata: %s\n\n", after, reconnectMessage(after)))
}

func reconnectFrame() *frame.Frame {
	return frame.New(frame.Text, frame.Control, reconnectMessage(retryAfterMillis()))
}

func reconnectMessage(after int64) []byte {
	return encode(struct {
		Action string `json:"action"`
		After  int64  `json:"retry_after_ms"`
	}{"reconnect", after})
}

func authSuccessFrame(userID string) *frame.Frame {
	return controlFrame(struct {
		Action string `json:"action"`
		UserID string `json:"user_id"`
	}{"auth_success", userID})
}

// The codes of auth_error on shoal.v1, beside those of a TokenError.
const (
	codeUnavailable = "unavailable"
	codeTimeout     = "timeout"
	codeRequired    = "required"
)

// authErrorFrame returns an auth_error; code is "" on the base protocol.
func authErrorFrame(message, code string) *frame.Frame {
	return controlFrame(struct {
		Action  string `json:"action"`
		Message string `json:"message"`
		Code    string `json:"code,omitempty"`
	}{"auth_error", message, code})
}

// authUnavailableFrame returns the auth_error for a token that cannot be checked now, which is for shoal.v1 only.
func authUnavailableFrame() *frame.Frame {
	return authErrorFrame("Authentication is not possible now, try again later", codeUnavailable)
}

// sendUnsubscribed tells a client that a subscription has ended, also of an upload that its token does not allow, whose
// messages Send drops.
func (c *Client) sendUnsubscribed(uploadID string) {
	if c.v1 {
		c.out.Send(unsubscribedFrame(uploadID))
	}
}

// unsubscribedFrame acknowledges an unsubscribe, behind the queued messages of the upload.
func unsubscribedFrame(uploadID string) *frame.Frame {
	return frame.NewV1ForUpload(uploadID, frame.Event, encode(struct {
		Action   string `json:"action"`
		UploadID string `json:"upload_id"`
	}{"unsubscribed", uploadID}))
}

// The codes of error messages.
const (
	codeBadRequest    = "bad_request"
	codeUnknownAction = "unknown_action"
	codeForbidden     = "forbidden"
	codeLimitExceeded = "limit_exceeded"
	codeInternal      = "internal"
)

// errorMessage is an error of shoal.v1.
type errorMessage struct {
	Action   string `json:"action"`
	Code     string `json:"code"`
	Message  string `json:"message"`
	UploadID string `json:"upload_id,omitempty"`
	// UploadIDs are the uploads of an error that concerns many.
	UploadIDs []string `json:"upload_ids,omitempty"`
	// RetryAfter is the time in milliseconds after which the request may succeed.
	RetryAfter int64 `json:"retry_after_ms,omitempty"`
}

func errorFrame(code, message, uploadID string) *frame.Frame {
	return errorMessage{Code: code, Message: message, UploadID: uploadID}.frame()
}

func (e errorMessage) frame() *frame.Frame {
	e.Action = "error"
	return frame.NewV1(frame.Event, encode(e))
}

// retryAfterMillis draws the time after which a client should try again, so that not all come in the same instant.
func retryAfterMillis() int64 {
	return (reconnectMin + rand.N(reconnectMax-reconnectMin)).Milliseconds()
}

func controlFrame(v any) *frame.Frame { return frame.New(frame.Text, frame.Control, encode(v)) }

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("server: " + err.Error()) // strings and numbers always encode
	}
	return data
}

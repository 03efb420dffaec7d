package server

import (
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
	return c.out.Recover(outbox.Replay{
		UploadID: r.UploadID, Frames: r.Frames, Epoch: r.Position.Epoch, After: r.Position.Offset, Source: r.Source,
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

package manager

import (
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
)

// Replayer is implemented by a Conn that writes stored messages at the pace of its client: the snapshot of a
// subscription and the messages missed since a position. A Conn that does not implement it gets them by Send, all at
// once and with the upload's lock held.
type Replayer interface {
	Conn
	// Replay queues stored messages of an upload. Messages of the same upload that are sent afterwards must follow
	// them; those of other uploads should not wait for them. The upload's lock is held: Replay must not block or call
	// the manager.
	Replay(r Replay) Outcome
	// CancelReplay drops the messages of an upload's replays that have not been written, because the connection has
	// unsubscribed. It must not block or call the manager.
	CancelReplay(uploadID string)
	// HoldReplays delays replays until ReleaseReplays queues the answer that precedes them. In between the messages of
	// replayed uploads, stored and live, must not be written. Calls are paired, also on a closed connection.
	HoldReplays()
	ReleaseReplays(answer *Frame)
}

// Replay is a part of the history of one upload.
type Replay struct {
	UploadID string
	// Frames are the acknowledgement, if any, and the messages, oldest first.
	Frames []*Frame
	// Position is the position before the first of the messages.
	Position Position
	// Source reads the messages again. A Replayer may keep a position instead of all frames and read the rest later.
	Source ReplaySource
}

// ReplaySource reads stored messages for a Replayer.
type ReplaySource interface {
	// Read calls deliver with the messages of an upload after an offset, oldest first, while the upload is locked. If
	// the history no longer holds all of them, or the epoch has ended, the frames are a `subscribed` with the new
	// position and the newest message. If the upload is not known, deliver is not called. The caller must hold no lock
	// that its Send and Replay methods use.
	Read(uploadID, epoch string, after uint64, deliver func([]*Frame))
}

// replaySource implements ReplaySource.
type replaySource struct{ manager *Manager }

func (s replaySource) Read(uploadID, epoch string, after uint64, deliver func([]*Frame)) {
	m := s.manager
	m.registry.WithKnown(uploadID, func(u *upload) {
		m.bursts.flush(u)
		m.expire(u, time.Now())
		log := u.State.log
		if log == nil {
			return
		}
		if missed, ok := log.Since(epoch, after); ok {
			deliver(messages(nil, missed))
			return
		}
		newest, after := m.newest(u)
		frames := []*Frame{subscribedFrame(u.ID(), position(log), false, after)}
		if newest != nil {
			frames = append(frames, newest)
		}
		deliver(frames)
	})
}

// replay sends stored messages of an upload to a connection. after is the position before the first of them. The
// upload's lock is held.
func (m *Manager) replay(u *upload, c Conn, after Position, frames []*Frame) {
	if r, ok := c.(Replayer); ok {
		m.guard.call("Replay", c, func() {
			r.Replay(Replay{UploadID: u.ID(), Frames: frames, Position: after, Source: replaySource{m}})
		})
		return
	}
	for _, f := range frames {
		m.guard.send(c, f)
	}
}

// newest returns the upload's newest message, nil if it is not held, and the position before it. The upload's lock is
// held.
func (m *Manager) newest(u *upload) (newest *Frame, after Position) {
	log := u.State.log
	if log == nil {
		return nil, Position{}
	}
	after = position(log)
	e, ok := log.Newest()
	if ok && e.Offset > 0 {
		after.Offset = e.Offset - 1
	}
	return e.Message, after
}

// appendNewest appends the upload's newest message, if it is held, and returns the position before it. The upload's
// lock is held.
func (m *Manager) appendNewest(u *upload, frames []*Frame) ([]*Frame, Position) {
	newest, after := m.newest(u)
	if newest != nil {
		frames = append(frames, newest)
	}
	return frames, after
}

// messages appends the messages of entries to frames.
func messages(frames []*Frame, entries []history.Entry[*frame.Frame]) []*Frame {
	for _, e := range entries {
		frames = append(frames, e.Message)
	}
	return frames
}

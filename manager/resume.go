package manager

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
)

// Resume subscribes a registered connection to many uploads at once, each from the position up to which the client has
// received it. The connection gets one `resumed` with all positions, then the missed messages, then the live
// ones. Messages of these uploads that it got before that answer, because another connection of the user follows
// them, may be sent again. A Replayer writes the missed messages at its client's pace. Another Conn gets them at once,
// and is closed with SlowConsumer where messages published in the meantime would be out of order.
//
// Resume blocks like SubscribeConn. It returns the uploads that could not be subscribed and the reasons:
// ErrTooManySubscriptions, ErrNotConnected if the connection has been disconnected, or one that wraps ErrRefused; they
// are not part of the answer, and nothing is stored for them. The error is an *InvalidError, ErrNotConnected,
// ErrTooManySubscriptions if there are more uploads than a user may follow, ErrClosed, the error of ctx, or one that
// wraps ErrUnavailable; then nothing has been subscribed.
func (m *Manager) Resume(
	ctx context.Context, userID string, c Conn, since map[string]Position,
) (refused map[string]error, err error) {
	ids := slices.Sorted(maps.Keys(since))
	if err := m.checkSubscription(ctx, userID, ids...); err != nil {
		return nil, err
	}
	if !isUsable(c) {
		return nil, ErrNotConnected
	}
	limit := m.opt.MaxSubscriptionsPerUser
	if limit > 0 && len(since) > limit {
		return nil, ErrTooManySubscriptions
	}
	// The limit is checked before anything is created for an upload: a refused resume must cost nothing.
	admitted, connected := m.registry.Admissible(userID, c, ids, limit)
	if !connected {
		return nil, ErrNotConnected
	}
	defer m.flushClaims(c)
	release, refusedByBroker, err := m.follow(ctx, admitted...)
	if err != nil {
		return nil, err
	}
	defer release()
	followed := without(admitted, refusedByBroker)
	read := sinceFor(since, followed)
	unread, err := m.readOlder(ctx, read)
	if err != nil {
		return nil, err
	}
	followed = without(followed, unread)
	m.waitForPosition(ctx, read)
	r := &resumption{manager: m, userID: userID, conn: c, since: since, refused: map[string]error{}}
	r.answer(followed)
	m.enforceBounds()
	maps.Copy(r.refused, refusedByBroker)
	maps.Copy(r.refused, unread)
	for _, uploadID := range ids {
		if _, ok := slices.BinarySearch(admitted, uploadID); !ok {
			r.refused[uploadID] = ErrTooManySubscriptions
		}
	}
	if len(r.refused) == 0 {
		return nil, nil
	}
	return r.refused, nil
}

// without returns the ids that are not refused.
func without(ids []string, refused map[string]error) []string {
	if len(refused) == 0 {
		return ids
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return refused[id] != nil })
}

// sinceFor returns the positions of some uploads: nothing is read for the others.
func sinceFor(since map[string]Position, uploadIDs []string) map[string]Position {
	if len(uploadIDs) == len(since) {
		return since
	}
	some := make(map[string]Position, len(uploadIDs))
	for _, id := range uploadIDs {
		some[id] = since[id]
	}
	return some
}

// resumption is a Resume in progress.
type resumption struct {
	manager *Manager
	userID  string
	conn    Conn
	since   map[string]Position
	refused map[string]error
}

// answer subscribes the uploads and sends the answer and their messages.
func (r *resumption) answer(uploadIDs []string) {
	release := r.manager.resuming.acquire(r.conn)
	broken := false
	if replayer, ok := r.conn.(Replayer); ok {
		r.replay(replayer, uploadIDs)
	} else {
		broken = r.send(uploadIDs)
	}
	release()
	if broken {
		r.manager.guard.close(r.conn, SlowConsumer)
	}
}

// resumedUpload is one upload in the answer to a resume.
type resumedUpload struct {
	uploadID  string
	now       Position
	recovered bool
	// frames are the messages that the client missed, or the newest one if it is not recovered. Holding them keeps them
	// from being evicted. after is the position before the first.
	frames []*Frame
	after  Position
}

// read reads an upload's position and the messages that follow the answer. The upload's lock is held.
func (r *resumption) read(u *upload) resumedUpload {
	now := time.Now()
	r.manager.bursts.flush(u)
	r.manager.expire(u, now)
	log := r.manager.log(u, now)
	a := resumedUpload{uploadID: u.ID(), now: position(log)}
	since := r.since[a.uploadID]
	missed, recovered := log.Since(since.Epoch, since.Offset)
	if a.recovered = recovered; recovered {
		a.frames, a.after = messages(nil, missed), since
	} else {
		a.frames, a.after = r.manager.appendNewest(u, nil)
	}
	return a
}

// replay subscribes the uploads and hands their messages to the connection, which writes them after the answer.
func (r *resumption) replay(replayer Replayer, uploadIDs []string) {
	answer := make([]resumedUpload, 0, len(uploadIDs))
	guard := &r.manager.guard
	guard.replay("HoldReplays", replayer, replayer.HoldReplays)
	defer guard.replay("ReleaseReplays", replayer, func() { replayer.ReleaseReplays(resumedFrame(answer)) })
	for _, uploadID := range uploadIDs {
		r.subscribe(uploadID, func(u *upload, _ bool) {
			a := r.read(u)
			// Even an upload without missed messages is replayed: its live messages must not precede the answer.
			r.manager.replay(u, replayer, Replay{Position: a.after, Frames: a.frames})
			answer = append(answer, a)
		})
	}
}

// send does the same with a connection that is not a Replayer. The positions are read before any upload is subscribed:
// otherwise its live messages could precede the answer. An upload cannot be continued from the answer if since then it
// was forgotten, or had more messages than its history holds, or if the connection has been following it and so has got
// the new messages before the missed ones, or if the user has reached its limit of subscriptions. Then send returns
// true: the client must resume once more.
func (r *resumption) send(uploadIDs []string) (broken bool) {
	answer := make([]resumedUpload, 0, len(uploadIDs))
	for _, uploadID := range uploadIDs {
		r.manager.registry.With(uploadID, func(u *upload) { answer = append(answer, r.read(u)) })
	}
	r.manager.guard.send(r.conn, resumedFrame(answer))
	for i := range answer {
		a := &answer[i]
		r.subscribe(a.uploadID, func(u *upload, received bool) {
			added, ok := r.manager.log(u, time.Now()).Since(a.now.Epoch, a.now.Offset)
			if !ok || received && len(added) > 0 {
				broken = true
				return
			}
			r.manager.replay(u, r.conn, Replay{Position: a.after, Frames: messages(a.frames, added)})
		})
		broken = broken || errors.Is(r.refused[a.uploadID], ErrTooManySubscriptions)
	}
	return broken
}

// subscribe subscribes the connection to one upload and calls subscribed with the upload locked. received is true if
// the connection has been receiving its messages, by whichever claim of the user.
func (r *resumption) subscribe(uploadID string, subscribed func(u *upload, received bool)) {
	limit := r.manager.opt.MaxSubscriptionsPerUser
	err := r.manager.registry.ResumeConn(r.userID, r.conn, uploadID, limit, func(u *upload, _, received bool) {
		subscribed(u, received)
	})
	if err != nil {
		r.refused[uploadID] = refusal(err)
	}
}

// Replayer is implemented by a Conn that writes stored messages at the pace of its client: the snapshot of a
// subscription and the messages missed since a position. A Conn that does not implement it gets them by Send, all at
// once and with the upload's lock held.
type Replayer interface {
	Conn
	// Replay queues stored messages of an upload. Messages of the same upload that are sent afterwards must follow
	// them; those of other uploads should not wait for them. The upload's lock is held: Replay must not block or call
	// the manager.
	Replay(r Replay) Outcome
	// CancelReplay drops the messages of an upload's replays that have not been written, because the user of the
	// connection no longer follows the upload, or the connection is no longer registered. After Close it must have no
	// effect. The locks of the user and the upload are held: it must not block or call the manager.
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
	// Snapshot reports that the client has not told that position: all messages of the upload that were queued before,
	// or that are still to be read from the source, precede the frames. Otherwise Frames replace them.
	Snapshot bool
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
		frames := []*Frame{subscribedFrame(u.ID(), position(log), false, after, newest == nil)}
		if newest != nil {
			frames = append(frames, newest)
		}
		deliver(frames)
	})
}

// replay sends stored messages of an upload to a connection. The upload's lock is held.
func (m *Manager) replay(u *upload, c Conn, replay Replay) {
	if r, ok := c.(Replayer); ok {
		replay.UploadID, replay.Source = u.ID(), replaySource{m}
		if !m.guard.refuses(c) {
			m.guard.replay("Replay", r, func() { r.Replay(replay) })
		}
		return
	}
	for _, f := range replay.Frames {
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

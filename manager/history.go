package manager

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
)

// Position is a point in the messages of an upload: the epoch, which is opaque and changes when the history before it
// is lost, and the offset of the newest message, 0 before the first.
type Position = broker.Position

// Stored is a message that the history holds.
type Stored struct {
	Offset uint64
	// Payload is the JSON as it was published, without the offset. It must not be changed.
	Payload []byte
}

// History contains the stored messages of an upload.
type History struct {
	Position Position
	// Complete: Messages are all messages after the position that was asked for. If it is false the epoch
	// is another one or the history no longer reaches back, and Messages is everything held.
	Complete bool
	Messages []Stored
}

// Newest returns an upload's newest message, the zero value if none is stored any more, and the upload's position. With
// a broker it blocks on that, at most until ctx ends. The error is an *InvalidError or ErrUnknownUpload, or with a
// broker ErrClosed, ctx's error or one that wraps ErrUnavailable or ErrRefused.
func (m *Manager) Newest(ctx context.Context, uploadID string) (newest Stored, pos Position, err error) {
	if m.checkCreated() == nil && m.cluster != nil && m.cluster.history != nil {
		return m.cluster.newest(ctx, uploadID)
	}
	log, err := m.copyLog(ctx, uploadID)
	switch {
	case err != nil:
		return Stored{}, Position{}, err
	case log == nil:
		return Stored{}, Position{}, ErrUnknownUpload
	}
	if e, ok := log.Newest(); ok {
		newest = stored(e)
	}
	return newest, position(log), nil
}

// History returns the stored messages of an upload after a position, oldest first. An empty epoch matches any epoch. It
// blocks and fails as Newest does, but is empty for an unknown upload.
func (m *Manager) History(ctx context.Context, uploadID string, since Position) (h History, err error) {
	log, err := m.copyLog(ctx, uploadID)
	if log == nil {
		return History{}, err
	}
	if since.Epoch == "" {
		since.Epoch = log.Epoch()
	}
	h.Position = position(log)
	entries, complete := log.Since(since.Epoch, since.Offset)
	if !complete {
		entries = log.All()
	}
	h.Complete = complete
	for _, e := range entries {
		h.Messages = append(h.Messages, stored(e))
	}
	return h, nil
}

// copyLog returns a copy of an upload's log, nil if it is not known.
func (m *Manager) copyLog(ctx context.Context, uploadID string) (log *history.Log[*frame.Frame], err error) {
	if err := errors.Join(m.checkCreated(), CheckID("upload_id", uploadID)); err != nil {
		return nil, err
	}
	if m.cluster != nil {
		return m.cluster.storedLog(ctx, uploadID)
	}
	m.registry.WithKnown(uploadID, func(u *upload) {
		m.expire(u, time.Now())
		if u.State.log != nil {
			log = u.State.log.Clone()
		}
	})
	return log, nil
}

// Forget drops an upload's history and begins a new epoch, for a retry of the upload. Subscriptions are kept; shoal.v1
// subscribers receive the new position. With a broker it blocks on that; if the broker stores no histories, until every
// node has confirmed. The error is an *InvalidError or ErrClosed, or with a broker one that wraps ErrUnavailable, and
// ctx's error if that has ended, or ErrRefused, or a *MissingNodesError.
func (m *Manager) Forget(ctx context.Context, uploadID string) error {
	if err := m.check(); err != nil {
		return err
	}
	if err := CheckID("upload_id", uploadID); err != nil {
		return err
	}
	if m.cluster != nil {
		return m.cluster.forget(ctx, uploadID)
	}
	m.forgetHere(uploadID)
	return nil
}

// forgetHere begins a new epoch of an upload on this node.
func (m *Manager) forgetHere(uploadID string) {
	m.registry.WithKnown(uploadID, func(u *upload) {
		before := logSizeOf(u)
		u.State.log = nil
		m.account(u, before)
		if f := u.State.follow; u.Subscribers() == 0 && (f == nil || !f.live) {
			return
		}
		pos := position(m.log(u, time.Now()))
		m.bursts.flush(u)
		m.fans.send(u.Receivers(), subscribedFrame(u.ID(), pos, false, pos, true))
	})
}

// log returns the upload's log and creates it if necessary. The upload's lock is held.
func (m *Manager) log(u *upload, now time.Time) *history.Log[*frame.Frame] {
	if u.State.log == nil {
		before := logSizeOf(u)
		u.State.log = history.New[*frame.Frame](m.newEpoch(), now)
		m.account(u, before)
	}
	return u.State.log
}

// newEpoch returns the name of an epoch that begins on this node.
func (m *Manager) newEpoch() string { return m.run + "." + strconv.FormatUint(m.epochs.Add(1), 36) }

// expire drops the expired data of an upload, whose lock is held: the messages, and the position too if the upload has
// no followers and none can return. A position without messages is kept briefly, for a subscriber that lost its
// connection before the first message.
func (m *Manager) expire(u *upload, now time.Time) {
	log := u.State.log
	if log == nil {
		return
	}
	defer m.account(u, logSizeOf(u))
	log.Expire(now, m.opt.HistoryTTL)
	keep := m.opt.HistoryTTL
	if log.Offset() == 0 || m.opt.HistoryMessages < 0 {
		keep = m.opt.PendingTTL
	}
	if u.State.follow == nil && u.Subscribers() == 0 && log.Len() == 0 && now.Sub(log.Touched()) >= keep {
		u.State.log = nil
	}
}

func position(log *history.Log[*frame.Frame]) Position {
	return Position{Epoch: log.Epoch(), Offset: log.Offset()}
}

func stored(e history.Entry[*frame.Frame]) Stored {
	return Stored{Offset: e.Offset, Payload: e.Message.Body()}
}

package manager

import (
	"context"
	"errors"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
	"github.com/shoal-go/shoal/shard"
)

// SubscribeUpload makes a user follow an upload: all the user's connections, of now and later, get its newest
// message, if there is one, and then what follows. A user without a connection is accepted too, for
// Options.PendingTTL. When it returns nil, a message published afterwards, on any node, is sure to arrive. With
// a broker it blocks until the broker has confirmed that.
//
// The error is an *InvalidError, ErrTooManySubscriptions, ErrTooManyPending, ErrClosed, that of ctx, or with a
// broker one that wraps ErrUnavailable.
func (m *Manager) SubscribeUpload(ctx context.Context, userID, uploadID string) error {
	if err := m.checkSubscription(ctx, userID, uploadID); err != nil {
		return err
	}
	release, err := m.follow(ctx, uploadID)
	if err != nil {
		return err
	}
	defer release()
	return refusal(m.registry.SubscribeUser(userID, uploadID, m.opt.MaxSubscriptionsPerUser, m.opt.MaxPending,
		time.Now().UnixNano(), m.sendNewest))
}

// UnsubscribeUpload makes a user follow an upload no longer, whichever connections claim it.
func (m *Manager) UnsubscribeUpload(userID, uploadID string) {
	m.registry.UnsubscribeUser(userID, uploadID)
}

// SubscribeOptions say how a connection is brought up to date. The zero value sends it the newest message.
type SubscribeOptions struct {
	// Since is the position up to which the client has seen the upload's messages.
	Since *Position
	// Acknowledge sends `subscribed`, with the upload's position, ahead of everything else.
	Acknowledge bool
}

// SubscribeConn makes a user follow an upload on behalf of one registered connection. If this is a new claim
// the connection gets the newest message, or the messages after opt.Since if the history reaches back so
// far, and then what follows. A connection that asks again gets messages only if it gives opt.Since.
//
// It blocks as SubscribeUpload does, and with a broker for up to a second more while this node lags behind
// opt.Since, which the client has from a node that was further on. The error is an *InvalidError,
// ErrNotConnected, ErrTooManySubscriptions, ErrClosed, that of ctx, or with a broker one that wraps
// ErrUnavailable.
func (m *Manager) SubscribeConn(
	ctx context.Context, userID string, c Conn, uploadID string, opt SubscribeOptions,
) error {
	if err := m.checkSubscription(ctx, userID, uploadID); err != nil {
		return err
	}
	release, err := m.follow(ctx, uploadID)
	if err != nil {
		return err
	}
	defer release()
	if opt.Since != nil {
		m.overtake(ctx, map[string]Position{uploadID: *opt.Since})
	}
	err = m.registry.SubscribeConn(userID, c, uploadID, m.opt.MaxSubscriptionsPerUser, func(u *upload, fresh bool) {
		m.catchUpConn(u, c, fresh, opt)
	})
	return refusal(err)
}

// UnsubscribeConn takes back the claim of one connection. The user's other connections keep theirs.
func (m *Manager) UnsubscribeConn(userID string, c Conn, uploadID string) {
	m.registry.UnsubscribeConn(userID, c, uploadID)
}

// catchUpConn sends a newly subscribed connection the acknowledgement and the stored messages that precede the live ones. The
// upload's lock is held.
func (m *Manager) catchUpConn(u *upload, c Conn, fresh bool, opt SubscribeOptions) {
	now := time.Now()
	m.expire(u, now)
	var frames []*Frame
	var missed []history.Entry[*frame.Frame]
	recovered := false
	if opt.Acknowledge || opt.Since != nil {
		log := m.log(u, now)
		if opt.Since != nil {
			missed, recovered = log.Since(opt.Since.Epoch, opt.Since.Offset)
		}
		if opt.Acknowledge {
			frames = append(make([]*Frame, 0, 2+len(missed)), subscribedFrame(u.ID(), position(log), recovered))
		}
	}
	var after Position
	switch {
	case recovered:
		frames, after = messages(frames, missed), *opt.Since
	case fresh || opt.Since != nil:
		frames, after = m.appendNewest(u, frames)
	}
	if len(frames) > 0 {
		m.replay(u, c, after, frames)
	}
}

// sendNewest sends a connection the upload's newest message, if it is held. The upload's lock is held.
func (m *Manager) sendNewest(u *upload, c Conn) { m.catchUpConn(u, c, true, SubscribeOptions{}) }

func (m *Manager) checkSubscription(ctx context.Context, userID, uploadID string) error {
	if m.closed.Load() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := CheckID("user_id", userID); err != nil {
		return err
	}
	return CheckID("upload_id", uploadID)
}

// refusal translates the registry's errors.
func refusal(err error) error {
	switch {
	case errors.Is(err, shard.ErrLimit):
		return ErrTooManySubscriptions
	case errors.Is(err, shard.ErrPending):
		return ErrTooManyPending
	case errors.Is(err, shard.ErrUnknown):
		return ErrNotConnected
	default:
		return err
	}
}

package manager

import (
	"context"
	"errors"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/history"
	"github.com/shoal-go/shoal/shard"
)

// SubscribeUpload subscribes a user to an upload: all connections of the user to this node, present and future, get its
// newest message, if it has one, and then the live messages. A user without a connection is accepted for
// Options.PendingTTL. The connections of the user to other nodes are not concerned: each node subscribes its own.
// After SubscribeUpload has returned nil, every message published on any node is delivered. With a broker it blocks
// until the broker has confirmed the subscription.
//
// The error is an *InvalidError, ErrTooManySubscriptions, ErrTooManyPending, ErrClosed, the error of ctx, or one that
// wraps ErrUnavailable or ErrRefused.
func (m *Manager) SubscribeUpload(ctx context.Context, userID, uploadID string) error {
	if err := m.checkSubscription(ctx, userID, uploadID); err != nil {
		return err
	}
	release, err := m.followOne(ctx, uploadID)
	if err != nil {
		return err
	}
	defer m.enforceBounds()
	defer release()
	err = refusal(m.registry.SubscribeUser(userID, uploadID, m.opt.MaxSubscriptionsPerUser, m.opt.MaxPending,
		m.clock(), m.sendNewest))
	// Close sets closed before it ends the pending subscriptions: either it finds this one, or this finds closed set.
	if err == nil && m.closed.Load() {
		m.registry.UnsubscribeUser(userID, uploadID)
		return ErrClosed
	}
	return err
}

// UnsubscribeUpload ends a user's subscription to an upload on this node, including the claims of connections. It has
// no effect without one.
func (m *Manager) UnsubscribeUpload(userID, uploadID string) {
	if m.checkCreated() == nil && m.registry.UnsubscribeUser(userID, uploadID) {
		m.flushUserClaims(userID)
	}
}

// SubscribeOptions configures SubscribeConn. With the zero value the connection gets the newest message.
type SubscribeOptions struct {
	// Since is the position up to which the client has received the upload's messages.
	Since *Position
	// Acknowledge sends `subscribed`, with the upload's position, before the messages.
	Acknowledge bool
}

// SubscribeConn subscribes a user to an upload with a claim of one registered connection. If the claim is new, the
// connection gets the newest message, or the messages after opt.Since if the history still holds them, and then the
// live messages. A connection that already has a claim gets stored messages only if opt.Since is set. A Replayer
// writes the stored messages at its client's pace.
//
// SubscribeConn blocks like SubscribeUpload. With a broker it blocks for up to a second more while this node lags
// behind opt.Since, a position that the client has from another node. The error is an *InvalidError, ErrNotConnected,
// ErrTooManySubscriptions, ErrClosed, the error of ctx, or one that wraps ErrUnavailable or ErrRefused.
func (m *Manager) SubscribeConn(
	ctx context.Context, userID string, c Conn, uploadID string, opt SubscribeOptions,
) error {
	if err := m.checkSubscription(ctx, userID, uploadID); err != nil {
		return err
	}
	if !isUsable(c) {
		return ErrNotConnected
	}
	if err := m.subscribeConn(ctx, userID, c, uploadID, opt); err != nil {
		return err
	}
	m.flushClaims(c)
	return nil
}

// subscribeConn is SubscribeConn for valid arguments, without flushing the claims.
func (m *Manager) subscribeConn(
	ctx context.Context, userID string, c Conn, uploadID string, opt SubscribeOptions,
) error {
	release, err := m.followOne(ctx, uploadID)
	if err != nil {
		return err
	}
	defer release()
	if opt.Since != nil {
		since := map[string]Position{uploadID: *opt.Since}
		refused, err := m.readOlder(ctx, since)
		if err == nil {
			err = refused[uploadID]
		}
		if err != nil {
			return err
		}
		m.waitForPosition(ctx, since)
	}
	err = m.registry.SubscribeConn(userID, c, uploadID, m.opt.MaxSubscriptionsPerUser, func(u *upload, fresh bool) {
		m.catchUpConn(u, c, fresh, opt)
	})
	m.enforceBounds()
	return refusal(err)
}

// UnsubscribeConn ends the claim of one connection. Claims of the user's other connections are kept.
func (m *Manager) UnsubscribeConn(userID string, c Conn, uploadID string) {
	if m.checkCreated() == nil && isUsable(c) {
		if m.registry.UnsubscribeConn(userID, c, uploadID) {
			m.flushClaims(c)
		}
	}
}

// cancelReplay ends the replays of a connection that no longer receives an upload. The locks of the user and the upload
// are held.
func (m *Manager) cancelReplay(c Conn, u *upload) {
	if r, ok := c.(Replayer); ok {
		m.guard.call("CancelReplay", c, func() { r.CancelReplay(u.ID()) })
	}
}

// catchUpConn sends a newly subscribed connection the acknowledgement and the stored messages that precede the live
// ones. The upload's lock is held.
func (m *Manager) catchUpConn(u *upload, c Conn, fresh bool, opt SubscribeOptions) {
	now := time.Now()
	m.expire(u, now)
	var missed []history.Entry[*frame.Frame]
	var pos, after Position
	recovered := false
	if opt.Acknowledge || opt.Since != nil {
		log := m.log(u, now)
		pos = position(log)
		after = pos
		if opt.Since != nil {
			missed, recovered = log.Since(opt.Since.Epoch, opt.Since.Offset)
		}
	}
	var newest *Frame
	switch {
	case recovered:
		after = *opt.Since
	case fresh || opt.Since != nil:
		newest, after = m.newest(u)
	}
	frames := make([]*Frame, 0, 2+len(missed))
	if opt.Acknowledge {
		expired := newest == nil && (fresh || opt.Since != nil)
		frames = append(frames, subscribedFrame(u.ID(), pos, recovered, after, expired))
	}
	if newest != nil {
		frames = append(frames, newest)
	}
	if frames = messages(frames, missed); len(frames) > 0 {
		m.replay(u, c, Replay{Position: after, Frames: frames, Snapshot: opt.Since == nil})
	}
}

// sendNewest sends a connection the upload's newest message, if it is held. The upload's lock is held.
func (m *Manager) sendNewest(u *upload, c Conn) { m.catchUpConn(u, c, true, SubscribeOptions{}) }

// checkSubscription returns the reason for which a call to subscribe cannot begin.
func (m *Manager) checkSubscription(ctx context.Context, userID string, uploadIDs ...string) error {
	if err := m.check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := CheckID("user_id", userID); err != nil {
		return err
	}
	for _, id := range uploadIDs {
		if err := CheckID("upload_id", id); err != nil {
			return err
		}
	}
	return nil
}

// refusal returns the manager's error for an error of the registry.
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

// ClaimObserver is implemented by a Conn that observes its own claims: those of SubscribeConn and Resume.
type ClaimObserver interface {
	// ClaimChanged reports a change of a claim, in the order of the changes. The locks of the user and the upload are
	// held: it must not block or call the manager.
	ClaimChanged(ClaimChange)
	// FlushClaims is called when SubscribeConn, Resume, UnsubscribeConn or UnsubscribeUpload have changed claims of the
	// connection, before they return and without locks: it may block and call the manager. It is not called after the
	// end of the connection.
	FlushClaims()
}

// ClaimChange is a change of a connection's claim on an upload.
type ClaimChange struct {
	UploadID string
	Kind     ClaimChangeKind
	// UserFollows reports whether the user follows the upload apart from this claim, and thus before a new claim and
	// after an ended one.
	UserFollows bool
}

// ClaimChangeKind is the cause of a ClaimChange.
type ClaimChangeKind uint8

const (
	// Claimed means that SubscribeConn or Resume made the claim.
	Claimed ClaimChangeKind = iota + 1
	// Unclaimed means that UnsubscribeConn ended the claim.
	Unclaimed
	// Revoked means that UnsubscribeUpload ended the claim.
	Revoked
	// ConnectionEnded means that the claim ended with its connection. It passes to the user if the user has another
	// connection.
	ConnectionEnded
)

// claimKinds are the manager's names of the registry's changes.
var claimKinds = [...]ClaimChangeKind{
	shard.Claimed: Claimed, shard.Unclaimed: Unclaimed, shard.Revoked: Revoked, shard.Ended: ConnectionEnded,
}

// claimChanged passes a change of a claim to its connection. The locks of the user and the upload are held.
func (m *Manager) claimChanged(c Conn, u *upload, change shard.Change, follows bool) {
	if o, ok := c.(ClaimObserver); ok {
		m.guard.claimChanged(o, c, ClaimChange{UploadID: u.ID(), Kind: claimKinds[change], UserFollows: follows})
	}
}

// flushClaims lets a connection act upon changes of its claims. No lock is held.
func (m *Manager) flushClaims(c Conn) {
	if o, ok := c.(ClaimObserver); ok {
		m.guard.call("FlushClaims", c, o.FlushClaims)
	}
}

// flushUserClaims does so for all connections of a user.
func (m *Manager) flushUserClaims(userID string) {
	var observers []Conn
	m.registry.WithConnections(userID, func(conns []Conn) {
		for _, c := range conns {
			if _, ok := c.(ClaimObserver); ok {
				observers = append(observers, c)
			}
		}
	})
	for _, c := range observers {
		m.flushClaims(c)
	}
}

// Claims returns the uploads that a registered connection itself has subscribed to: by SubscribeConn or Resume, and
// not by another connection of its user. Their order is not defined.
func (m *Manager) Claims(userID string, c Conn) (uploadIDs []string) {
	if m.checkCreated() != nil || !isUsable(c) {
		return nil
	}
	return m.registry.Claims(userID, c)
}

// Admissible returns the uploads that a connection could subscribe to, one after the other, within
// Options.MaxSubscriptionsPerUser; an id that is given twice counts twice. It is cheap, and meant to be called before
// an expensive authorization. It returns ErrNotConnected if the connection is not registered for the user.
func (m *Manager) Admissible(userID string, c Conn, uploadIDs ...string) (admitted []string, err error) {
	if err := m.checkCreated(); err != nil {
		return nil, err
	}
	if !isUsable(c) {
		return nil, ErrNotConnected
	}
	admitted, registered := m.registry.Admissible(userID, c, uploadIDs, m.opt.MaxSubscriptionsPerUser)
	if !registered {
		return nil, ErrNotConnected
	}
	return admitted, nil
}

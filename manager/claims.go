package manager

import "github.com/shoal-go/shoal/shard"

// ClaimObserver is implemented by a Conn that observes its own claims: those of SubscribeConn and Resume.
type ClaimObserver interface {
	// ClaimChanged reports a change of a claim, in the order of the changes. The locks of the user and the upload are
	// held: it must not block or call the manager.
	ClaimChanged(ClaimChange)
	// FlushClaims is called when SubscribeConn, Resume, UnsubscribeConn or UnsubscribeUpload have changed claims of the
	// connection, before they return and without locks: it may block and call the manager. It is not called after the end
	// of the connection.
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

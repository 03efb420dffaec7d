package server

import (
	"slices"
	"sync"

	"github.com/shoal-go/shoal/manager"
)

// Subscription is a claim of one connection on an upload, as OnSubscribe and OnUnsubscribe get it.
type Subscription struct {
	UploadID string
	// Reason is why the claim was made or has ended.
	Reason SubscriptionReason
	// UserFollows reports whether the user follows the upload apart from this claim. If it is false, the user has begun to
	// follow the upload with this claim, or ceased to follow it.
	UserFollows bool
}

// SubscriptionReason is why a claim was made or has ended.
type SubscriptionReason uint8

const (
	// ReasonClient means that the client asked for it.
	ReasonClient SubscriptionReason = iota + 1
	// ReasonApplication means that the application called a method of the manager, for example UnsubscribeUpload.
	ReasonApplication
	// ReasonForbidden means that Authorize refused the upload for a further token of the connection.
	ReasonForbidden
	// ReasonConnectionEnded means that the connection has ended. The claim passes to the user while the user has another
	// connection; UserFollows is then true. A claim of the user itself ends with the last connection, without a call of
	// OnUnsubscribe: ask manager.UserUploads in OnDisconnect.
	ReasonConnectionEnded
)

// String returns the name of the reason, for logs.
func (r SubscriptionReason) String() string {
	switch r {
	case ReasonClient:
		return "client"
	case ReasonApplication:
		return "application"
	case ReasonForbidden:
		return "forbidden"
	case ReasonConnectionEnded:
		return "connection ended"
	default:
		return "unknown"
	}
}

// claimQueue keeps the changes of a connection's claims, which the manager reports with locks held, until the hooks can
// be called. One goroutine at a time calls them, so that they see the changes in their order. A nil claimQueue is one
// of a server without hooks for them.
type claimQueue struct {
	mu      sync.Mutex // protects the fields below; nothing is called under it
	changes []claimChange
	// started is set once OnConnect has returned.
	started bool
	// hook is the name of the hook that is running, "" while none is.
	hook string
	// running is not nil while a goroutine calls the hooks, and closed when it ends.
	running chan struct{}
	// reason and uploadIDs, which are sorted, describe the request that the server itself is handling; the application
	// makes all other changes.
	reason    SubscriptionReason
	uploadIDs []string
}

// newClaimQueue returns the queue of a connection, nil if neither OnSubscribe nor OnUnsubscribe is set.
func (s *Server) newClaimQueue() *claimQueue {
	if s.opt.OnSubscribe == nil && s.opt.OnUnsubscribe == nil {
		return nil
	}
	return &claimQueue{}
}

// claimChange is a call of OnSubscribe or OnUnsubscribe.
type claimChange struct {
	Subscription
	claimed bool
}

// because names the reason for changes of the claims on uploads until done is called.
func (q *claimQueue) because(reason SubscriptionReason, uploadIDs ...string) (done func()) {
	if q == nil {
		return func() {}
	}
	if !slices.IsSorted(uploadIDs) {
		uploadIDs = slices.Sorted(slices.Values(uploadIDs))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reason, q.uploadIDs = reason, uploadIDs
	return q.noReason
}

func (q *claimQueue) noReason() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reason, q.uploadIDs = 0, nil
}

// start allows the hooks to be called.
func (q *claimQueue) start() {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.started = true
}

// add queues a change.
func (q *claimQueue) add(change manager.ClaimChange) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Subscription{UploadID: change.UploadID, Reason: ReasonApplication, UserFollows: change.UserFollows}
	switch {
	case change.Kind == manager.ConnectionEnded:
		s.Reason = ReasonConnectionEnded
	case change.Kind != manager.Revoked:
		if _, found := slices.BinarySearch(q.uploadIDs, change.UploadID); found {
			s.Reason = q.reason
		}
	}
	q.changes = append(q.changes, claimChange{s, change.Kind == manager.Claimed})
}

// next returns the next change, or false if there is none or the hooks must not be called now.
func (q *claimQueue) next() (change claimChange, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.changes) == 0 {
		q.changes = nil
		q.stopLocked()
		return claimChange{}, false
	}
	change, q.changes = q.changes[0], q.changes[1:]
	q.hook = "OnUnsubscribe"
	if change.claimed {
		q.hook = "OnSubscribe"
	}
	return change, true
}

// stop ends the calling of the hooks. Changes that are left are for the next goroutine.
func (q *claimQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopLocked()
}

func (q *claimQueue) stopLocked() {
	q.hook = ""
	close(q.running)
	q.running = nil
}

// begin makes the caller the goroutine that calls the hooks, unless there is one or nothing to do.
func (q *claimQueue) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.started || q.running != nil || len(q.changes) == 0 {
		return false
	}
	q.running = make(chan struct{})
	return true
}

// runningHook returns the name of the hook that is running, or "".
func (q *claimQueue) runningHook() string {
	if q == nil {
		return ""
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.hook
}

// ClaimChanged implements [manager.ClaimObserver]. Only the manager calls it.
func (c *Client) ClaimChanged(change manager.ClaimChange) {
	if c.claims != nil {
		c.claims.add(change)
	}
}

// FlushClaims implements [manager.ClaimObserver]. Only the manager calls it. It calls OnSubscribe and OnUnsubscribe for
// the changes so far, or leaves that to the goroutine that already does it.
func (c *Client) FlushClaims() {
	if c.claims == nil || !c.claims.begin() {
		return
	}
	done := false
	defer func() {
		if !done { // a hook has ended the goroutine
			c.claims.stop()
		}
	}()
	for change, ok := c.claims.next(); ok; change, ok = c.claims.next() {
		hook := c.server.opt.OnUnsubscribe
		if change.claimed {
			hook = c.server.opt.OnSubscribe
		}
		if hook != nil {
			c.guard(func() { hook(c, change.Subscription) })
			c.lastRead.Store(int64(c.server.clock())) // see SilentFor
		}
	}
	done = true
}

// drainClaims calls the hooks for the last changes, and blocks until a goroutine of the application that calls hooks
// has ended. The connection is no longer registered, so no further change comes.
func (c *Client) drainClaims() {
	if c.claims == nil {
		return
	}
	c.claims.start()
	done := false
	defer func() {
		if !done { // a hook has ended the goroutine, and others may be due
			c.drainClaims()
		}
	}()
	for !done {
		c.FlushClaims()
		c.claims.mu.Lock()
		running := c.claims.running
		c.claims.mu.Unlock()
		if running != nil {
			<-running
			continue
		}
		done = true
	}
}

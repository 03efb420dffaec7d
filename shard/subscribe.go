package shard

import (
	"errors"
	"slices"
)

// Errors of refused subscriptions and connections.
var (
	// ErrUnknown: the connection is not registered for the user.
	ErrUnknown = errors.New("shard: connection is not registered")
	// ErrLimit: the user follows as many uploads as the caller allows.
	ErrLimit = errors.New("shard: too many subscriptions of one user")
	// ErrFull: the user has as many connections as the caller allows, and none may be closed for it.
	ErrFull = errors.New("shard: too many connections of one user")
	// ErrPending: as many users subscribed without a connection as the caller allows.
	ErrPending = errors.New("shard: too many users wait for a connection")
)

// SubscribeConn subscribes a user to an upload on behalf of one of its connections. It calls entered with the upload's
// lock held, at the moment from which the connection receives the upload's messages; fresh reports that the connection
// has not received the upload's state yet. A limit below 1 means no limit. The error is ErrUnknown or ErrLimit.
func (r *Registry[C, S]) SubscribeConn(
	userID string, c C, uploadID string, limit int, entered func(up *Upload[C, S], fresh bool),
) error {
	return r.ResumeConn(userID, c, uploadID, limit, func(up *Upload[C, S], fresh, _ bool) { entered(up, fresh) })
}

// ResumeConn is SubscribeConn for a caller that must know whether the connection has been receiving the upload's
// messages, because its user follows the upload already. It fails as SubscribeConn does.
func (r *Registry[C, S]) ResumeConn(
	userID string, c C, uploadID string, limit int, entered func(up *Upload[C, S], fresh, received bool),
) error {
	u := r.lockUser(userID, false)
	if u == nil {
		return ErrUnknown
	}
	defer r.unlockUser(u)
	if !slices.Contains(u.conns, c) {
		return ErrUnknown
	}
	s, err := r.subscription(u, uploadID, limit)
	if err != nil {
		return err
	}
	defer r.unlockUpload(s.upload)
	m, received := s.member(c), s.wanted()
	if !m.claimed {
		m.claimed = true
		r.claim(c, s.upload, Claimed, received)
	}
	entered(s.upload, m.show(), received)
	return nil
}

// Admissible returns the uploads that SubscribeConn would accept for a connection, one after the other: the uploads
// that the user follows, and others up to the limit. It changes nothing. registered is false if the connection is not
// registered for the user. A limit below 1 means no limit.
func (r *Registry[C, S]) Admissible(
	userID string, c C, uploadIDs []string, limit int,
) (admitted []string, registered bool) {
	u := r.lockUser(userID, false)
	if u == nil {
		return nil, false
	}
	defer r.unlockUser(u)
	if !slices.Contains(u.conns, c) {
		return nil, false
	}
	kept := 0 // subscriptions that are not evicted for others
	u.subs.each(func(s *member[C, S]) {
		if s.upload.mu.Lock(); !s.inheritedOnly() {
			kept++
		}
		r.unlockUpload(s.upload)
	})
	free := limit - kept
	for _, id := range uploadIDs {
		s := u.subs.find(r.key(id))
		known := false
		if s != nil {
			s.upload.mu.Lock()
			known = !s.inheritedOnly()
			r.unlockUpload(s.upload)
		}
		switch {
		case known:
		case limit < 1 || free > 0:
			free--
		default:
			continue
		}
		admitted = append(admitted, id)
	}
	return admitted, true
}

// UnsubscribeConn removes a connection's claim and reports whether there was one. The subscription ends with its last
// claim.
func (r *Registry[C, S]) UnsubscribeConn(userID string, c C, uploadID string) (claimed bool) {
	r.withSubscription(userID, uploadID, func(_ *user[C, S], s *member[C, S]) {
		if m := s.member(c); m != nil && m.claimed {
			m.claimed, m.shown = false, false
			claimed = true
			r.claim(c, s.upload, Unclaimed, s.wanted())
		}
		r.release(s, false)
	})
	return claimed
}

// SubscribeUser subscribes a user to an upload, with or without a connection. It calls show with the upload's lock held
// for every connection that has not received the upload's state yet.
//
// The subscription of a user without a connection is pending; its age, which ExpirePending compares, counts from now of
// the last accepted call. At most maxPending users may be pending. Limits below 1 mean no limit. The error is
// ErrPending or ErrLimit.
func (r *Registry[C, S]) SubscribeUser(
	userID, uploadID string, limit, maxPending int, now int64, show func(*Upload[C, S], C),
) error {
	u := r.lockUser(userID, true)
	defer r.unlockUser(u)
	waits := len(u.conns) == 0
	newcomer := waits && u.subs.len() == 0
	if newcomer && !r.reserve(maxPending) {
		return ErrPending
	}
	s, err := r.subscription(u, uploadID, limit)
	if err != nil {
		if newcomer {
			r.waiting.Add(-1)
		}
		return err
	}
	defer r.unlockUpload(s.upload)
	if waits {
		r.pending.Store(u, now)
	}
	s.held = asked
	for _, c := range u.conns {
		if s.member(c).show() {
			show(s.upload, c)
		}
	}
	return nil
}

// UnsubscribeUser ends a user's subscription to an upload regardless of its claims, and reports whether there was one.
func (r *Registry[C, S]) UnsubscribeUser(userID, uploadID string) bool {
	return r.withSubscription(userID, uploadID, func(u *user[C, S], s *member[C, S]) {
		for m := s; m != nil; m = m.next {
			if m.claimed {
				r.claim(m.conn(), s.upload, Revoked, false)
			}
		}
		r.release(s, true)
		if len(u.conns) == 0 && u.subs.len() == 0 {
			r.stopWaiting(u)
		}
	})
}

// withSubscription calls fn with a user's subscription, if there is one, and reports whether there is. fn has both
// locks and must release the subscription.
func (r *Registry[C, S]) withSubscription(
	userID, uploadID string, fn func(*user[C, S], *member[C, S]),
) bool {
	u := r.lockUser(userID, false)
	if u == nil {
		return false
	}
	defer r.unlockUser(u)
	s := u.subs.find(r.key(uploadID))
	if s == nil {
		return false
	}
	r.lockOf(s)
	fn(u, s)
	return true
}

// ExpirePending ends the subscriptions of the users that have waited for a connection since before the given
// time, and returns how many users that were.
func (r *Registry[C, S]) ExpirePending(before int64) int {
	expired := 0
	r.pending.Range(func(u *user[C, S], _ int64) bool {
		if u.lockAlive() {
			if since, waits := r.pending.Load(u); waits && since < before {
				r.expire(u)
				expired++
			}
			r.unlockUser(u)
		}
		return true
	})
	return expired
}

// expire ends the subscriptions of a locked user that waits for a connection.
func (r *Registry[C, S]) expire(u *user[C, S]) {
	u.subs.each(func(s *member[C, S]) {
		r.lockOf(s)
		r.release(s, true)
	})
	r.stopWaiting(u)
}

// subscription returns the locked user's subscription with the upload's lock held, making it if need be.
func (r *Registry[C, S]) subscription(u *user[C, S], uploadID string, limit int) (*member[C, S], error) {
	k := r.key(uploadID)
	if s := u.subs.find(k); s != nil {
		r.lockOf(s)
		return s, nil
	}
	if limit > 0 && u.subs.len() >= limit {
		r.dropInherited(u)
		if u.subs.len() >= limit {
			return nil, ErrLimit
		}
	}
	up := r.lockUpload(k)
	r.flush(up)
	s := r.newSubscription(u, up)
	if len(u.conns) == 0 {
		s.wait()
	}
	for _, c := range u.conns {
		s.join(c)
	}
	s.upload.users++
	u.subs.add(k, s)
	r.shard(u.key.hash).subscriptions.Add(1)
	return s, nil
}

// dropInherited ends the subscriptions of a locked user whose only claims are inherited.
func (r *Registry[C, S]) dropInherited(u *user[C, S]) {
	u.subs.each(func(s *member[C, S]) {
		r.lockOf(s)
		r.release(s, s.inheritedOnly())
	})
}

// lockOf locks the upload of a subscription, whose receivers are about to change, and flushes it. The upload exists as
// long as the subscription does.
func (r *Registry[C, S]) lockOf(s *member[C, S]) {
	s.upload.mu.Lock()
	r.flush(s.upload)
}

// reserve takes one of the places of pending users and reports whether there was one.
func (r *Registry[C, S]) reserve(bound int) bool {
	if n := r.waiting.Add(1); bound > 0 && n > int64(bound) {
		r.waiting.Add(-1)
		return false
	}
	return true
}

// stopWaiting ends a user's pending state.
func (r *Registry[C, S]) stopWaiting(u *user[C, S]) {
	r.pending.Delete(u)
	r.waiting.Add(-1)
}

// Claims returns the uploads that a connection itself has claimed.
func (r *Registry[C, S]) Claims(userID string, c C) (uploadIDs []string) {
	u := r.lockUser(userID, false)
	if u == nil {
		return nil
	}
	defer r.unlockUser(u)
	u.subs.each(func(s *member[C, S]) {
		s.upload.mu.Lock()
		defer r.unlockUpload(s.upload)
		if m := s.member(c); m != nil && m.claimed {
			uploadIDs = append(uploadIDs, s.upload.ID())
		}
	})
	return uploadIDs
}

// Subscriptions returns at most limit of the uploads that a user follows, in no order, and the number of all of them.
func (r *Registry[C, S]) Subscriptions(userID string, limit int) (uploadIDs []string, total int) {
	u := r.lockUser(userID, false)
	if u == nil {
		return nil, 0
	}
	defer r.unlockUser(u)
	u.subs.each(func(s *member[C, S]) {
		if len(uploadIDs) < limit {
			uploadIDs = append(uploadIDs, s.upload.ID())
		}
	})
	return uploadIDs, u.subs.len()
}

package shard

import "slices"

// user is one user with its connections, oldest first, and its subscriptions.
type user[C comparable, S any] struct {
	// The lock protects the fields below, and the subscriptions together with their upload's lock. No blocking call is
	// allowed under it; uploads are locked under it, one at a time.
	lifetime
	conns []C
	// one is inline storage for the first connection.
	one  [1]C
	subs subscriptionSet[C, S]
	key  key
}

func (u *user[C, S]) name() string { return u.key.id }

// lockUser returns the user with its lock held. If it does not exist, lockUser creates it if create is set, else
// returns nil.
func (r *Registry[C, S]) lockUser(id string, create bool) *user[C, S] {
	k := r.key(id)
	users := r.shard(k.hash).users
	for {
		u, ok := users.load(k)
		switch {
		case ok:
		case !create:
			return nil
		default:
			u = users.loadOrAdd(k, func() *user[C, S] { return &user[C, S]{key: k} })
		}
		if u.lockAlive() {
			return u
		}
	}
}

// unlockUser releases the lock and removes the user if it is empty.
func (r *Registry[C, S]) unlockUser(u *user[C, S]) {
	if len(u.conns) == 0 && u.subs.len() == 0 {
		u.dead = true
		r.shard(u.key.hash).users.remove(u.key, u)
	}
	u.mu.Unlock()
}

// Connect registers a connection of a user; registering it again has no effect. The connection becomes a receiver of
// all uploads that the user follows. For each upload that the user itself claimed, Connect calls shown with that
// upload's lock held, so that the caller can send the upload's state.
//
// If the user already has limit connections, evict is called with them and returns the index of the connection to
// remove, which Connect returns with true. With -1 no connection is removed, and the error is ErrFull. A limit below 1
// means no limit.
func (r *Registry[C, S]) Connect(
	userID string, c C, limit int, evict func([]C) int, shown func(*Upload[C, S]),
) (old C, evicted bool, err error) {
	u := r.lockUser(userID, true)
	defer r.unlockUser(u)
	if slices.Contains(u.conns, c) {
		return old, false, nil
	}
	if limit > 0 && len(u.conns) >= limit {
		i := evict(u.conns)
		if i < 0 {
			return old, false, ErrFull
		}
		old, evicted = u.conns[i], true
	}
	if len(u.conns) == 0 && u.subs.len() > 0 {
		r.stopWaiting(u)
	}
	u.conns = push(u.conns, &u.one, c)
	r.shard(u.key.hash).connections.Add(1)
	u.subs.each(func(s *member[C, S]) {
		r.lockOf(s)
		if m := s.join(c); s.held == asked && m.show() {
			shown(s.upload)
		}
		r.unlockUpload(s.upload)
	})
	if evicted {
		r.detach(u, slices.Index(u.conns, old), true)
	}
	return old, evicted, nil
}

// Disconnect removes a connection and reports whether it was registered. Its claims pass to the user if the user has
// another connection; the user's subscriptions end with the last one.
func (r *Registry[C, S]) Disconnect(userID string, c C) bool { return r.disconnect(userID, c, true) }

// DisconnectClosing is Disconnect for a connection that its caller closes next: it does not call Left.
func (r *Registry[C, S]) DisconnectClosing(userID string, c C) bool {
	return r.disconnect(userID, c, false)
}

func (r *Registry[C, S]) disconnect(userID string, c C, left bool) bool {
	u := r.lockUser(userID, false)
	if u == nil {
		return false
	}
	defer r.unlockUser(u)
	// The search begins at the newest connection, as that among the members of a subscription does.
	for i, other := range slices.Backward(u.conns) {
		if other == c {
			r.detach(u, i, left)
			return true
		}
	}
	return false
}

// detach removes the connection with an index from its locked user. The page that subscribed may have navigated to a
// page that only watches, so the connection's claims pass to the user.
func (r *Registry[C, S]) detach(u *user[C, S], i int, left bool) {
	c := u.conns[i]
	u.conns = slices.Delete(u.conns, i, i+1)
	r.shard(u.key.hash).connections.Add(-1)
	last := len(u.conns) == 0
	u.subs.each(func(s *member[C, S]) {
		r.lockOf(s)
		m := s.member(c)
		if m.claimed {
			r.claim(c, s.upload, Ended, !last)
		}
		up := s.upload
		if left {
			r.left(c, up)
		}
		if last {
			r.end(s)
		} else {
			if m.claimed && s.held == notHeld {
				s.held = inherited
			}
			s.leave(m)
		}
		r.unlockUpload(up)
	})
}

// release ends a subscription without claims, or any subscription if end is set, and unlocks its upload.
func (r *Registry[C, S]) release(s *member[C, S], end bool) {
	up := s.upload
	if end || !s.wanted() {
		var nobody C
		for m := s; m != nil; m = m.next {
			if c := m.conn(); c != nobody {
				r.left(c, up)
			}
		}
		r.end(s)
	}
	r.unlockUpload(up)
}

// end removes a subscription. Both locks are held.
func (r *Registry[C, S]) end(s *member[C, S]) {
	u := s.user
	u.subs.remove(s)
	r.shard(u.key.hash).subscriptions.Add(-1)
	s.dissolve()
	r.ended.Put(s)
}

// WithConnections calls fn with the user's connections, oldest first, if the user exists.
func (r *Registry[C, S]) WithConnections(userID string, fn func(conns []C)) {
	u := r.lockUser(userID, false)
	if u == nil {
		return
	}
	defer r.unlockUser(u)
	fn(u.conns)
}

// EachConnection calls fn for every connection, the newest ones of each user first: in this order Disconnect finds each
// of many at once. It holds no lock during the call, so fn may call the registry. Connections that are added or removed
// concurrently may be omitted.
func (r *Registry[C, S]) EachConnection(fn func(userID string, c C)) {
	visit := func(u *user[C, S]) {
		u.mu.Lock()
		conns := slices.Clone(u.conns)
		u.mu.Unlock()
		for _, c := range slices.Backward(conns) {
			fn(u.key.id, c)
		}
	}
	for i := range r.shards {
		r.shards[i].users.each(visit)
	}
	r.collidingUsers.each(visit)
}

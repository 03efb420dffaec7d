package shard

// none is the slot of a member that has no place among an upload's receivers.
const none = -1

// A subscription is one user following one upload: a list with a member for each of the user's connections. Its
// first member stands for it as a whole, from its beginning to its end. While the user has no connection, the
// first member holds a slot without one, so that the upload knows its subscriber.
//
// It changes with both locks held, except that the slots belong to the upload's lock alone.
type member[C comparable, S any] struct {
	user   *user[C, S]
	upload *Upload[C, S]
	next   *member[C, S]
	slot   int32
	// claimed: this connection itself has asked for the upload.
	claimed bool
	// shown: the connection was given the upload's state, by its own claim or by the user's.
	shown bool
	// first: the member stands for the subscription.
	first bool
	// held is the user's own claim, as opposed to those of its connections. It is kept in the first member.
	held hold
}

// hold is the claim of a user as such on a subscription.
type hold uint8

const (
	notHeld hold = iota
	// inherited: the connection that claimed the subscription has ended, and the user had others. Such a claim gives way
	// when the user reaches its limit of subscriptions.
	inherited
	// asked: SubscribeUser made the claim.
	asked
)

// newSubscription returns a subscription without slots, in perhaps the memory of one that ended before.
func (r *Registry[C, S]) newSubscription(u *user[C, S], up *Upload[C, S]) *member[C, S] {
	s, _ := r.ended.Get().(*member[C, S])
	if s == nil {
		s = new(member[C, S])
	}
	*s = member[C, S]{user: u, upload: up, slot: none, first: true}
	return s
}

// wait takes the slot of a user without a connection.
func (s *member[C, S]) wait() {
	var nobody C
	s.upload.place(s, nobody)
}

// join makes a connection of the user a member and returns it.
func (s *member[C, S]) join(c C) *member[C, S] {
	var nobody C
	switch {
	case s.slot == none:
		s.upload.place(s, c)
		return s
	case s.is(nobody):
		s.upload.receivers[s.slot].Conn = c
		return s
	default:
		m := &member[C, S]{user: s.user, upload: s.upload, slot: none, next: s.next}
		s.next = m
		s.upload.place(m, c)
		return m
	}
}

// member returns the part of one of the user's connections.
func (s *member[C, S]) member(c C) *member[C, S] {
	for m := s; m != nil; m = m.next {
		if m.is(c) {
			return m
		}
	}
	return nil
}

func (s *member[C, S]) is(c C) bool { return s.upload.receivers[s.slot].Conn == c }

// leave takes a member out, which must not be the only one. If it is the first, the next takes its slot and goes
// in its stead.
func (s *member[C, S]) leave(m *member[C, S]) {
	s.upload.remove(m)
	if m == s {
		heir := s.next
		s.slot, s.claimed, s.shown = heir.slot, heir.claimed, heir.shown
		s.upload.receivers[s.slot].member = s
		s.next = heir.next
		return
	}
	before := s
	for before.next != m {
		before = before.next
	}
	before.next = m.next
}

// show marks the member as one that was given the upload's state, and reports whether that is new.
func (s *member[C, S]) show() bool {
	fresh := !s.shown
	s.shown = true
	return fresh
}

// wanted reports whether anything still claims the subscription.
func (s *member[C, S]) wanted() bool {
	for m := s; m != nil; m = m.next {
		if m.held != notHeld || m.claimed {
			return true
		}
	}
	return false
}

// inheritedOnly reports whether no connection claims the subscription, and the user has not asked for it.
func (s *member[C, S]) inheritedOnly() bool {
	for m := s; m != nil; m = m.next {
		if m.claimed {
			return false
		}
	}
	return s.held == inherited
}

// dissolve takes all members out of the upload and leaves the subscription empty. Nothing refers to it or to
// its members any more, except the user.
func (s *member[C, S]) dissolve() {
	for m := s; m != nil; m = m.next {
		s.upload.remove(m)
	}
	s.upload.users--
	*s = member[C, S]{}
}

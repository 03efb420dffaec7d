package shard

// none is the slot of a member without a receiver.
const none = -1

// A member is one connection's part of a subscription. A subscription is one user following one upload: a list with a
// member for each of the user's connections, represented by its first member during its whole lifetime. While the user
// has no connection, the first member holds a slot without one, so that the upload counts its subscriber.
//
// A subscription changes with both locks held, except the slots, which the upload's lock alone protects.
type member[C comparable, S any] struct {
	user   *user[C, S]
	upload *Upload[C, S]
	next   *member[C, S]
	slot   int32
	// claimed is set if this connection itself subscribed to the upload.
	claimed bool
	// shown is set once the connection received the upload's state, by its own claim or by the user's.
	shown bool
	// first is set for the member that represents the subscription.
	first bool
	// held is the user's own claim, as opposed to the claims of its connections. Only the first member stores it.
	held hold
}

// hold is a user's own claim on a subscription.
type hold uint8

const (
	notHeld hold = iota
	// inherited means that the claiming connection ended while the user had others. Such a claim is evicted when the
	// user reaches its limit of subscriptions.
	inherited
	// asked means that SubscribeUser made the claim.
	asked
)

// newSubscription returns a subscription without slots, reusing the memory of an ended one if available.
func (r *Registry[C, S]) newSubscription(u *user[C, S], up *Upload[C, S]) *member[C, S] {
	s, _ := r.ended.Get().(*member[C, S])
	if s == nil {
		s = new(member[C, S])
	}
	*s = member[C, S]{user: u, upload: up, slot: none, first: true}
	return s
}

// wait occupies the slot of a user without a connection.
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

// member returns the member of one of the user's connections.
func (s *member[C, S]) member(c C) *member[C, S] {
	for m := s; m != nil; m = m.next {
		if m.is(c) {
			return m
		}
	}
	return nil
}

// conn returns the connection of a member that has a slot.
func (s *member[C, S]) conn() C { return s.upload.receivers[s.slot].Conn }

func (s *member[C, S]) is(c C) bool { return s.upload.receivers[s.slot].Conn == c }

// leave removes a member, which must not be the only one. If it is the first, the next member takes its slot and
// represents the subscription.
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

// show marks the member as shown and reports whether it was not shown before.
func (s *member[C, S]) show() bool {
	fresh := !s.shown
	s.shown = true
	return fresh
}

// wanted reports whether the subscription has any claim left.
func (s *member[C, S]) wanted() bool {
	for m := s; m != nil; m = m.next {
		if m.held != notHeld || m.claimed {
			return true
		}
	}
	return false
}

// inheritedOnly reports whether the only claims of the subscription are inherited.
func (s *member[C, S]) inheritedOnly() bool {
	for m := s; m != nil; m = m.next {
		if m.claimed {
			return false
		}
	}
	return s.held == inherited
}

// dissolve removes all members from the upload and empties the subscription. Only the user refers to it afterwards.
func (s *member[C, S]) dissolve() {
	for m := s; m != nil; m = m.next {
		s.upload.remove(m)
	}
	s.upload.users--
	*s = member[C, S]{}
}

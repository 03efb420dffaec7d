package shard

// none is the slot of a member that has no place among an upload's receivers.
const none = -1

// member is a connection's part in a subscription. Its slot belongs to the upload's lock, the rest changes
// with both locks held.
type member[C comparable, S any] struct {
	sub  *subscription[C, S]
	slot int32
	// claimed: this connection itself has asked for the upload.
	claimed bool
	// shown: the connection was given the upload's state, by its own claim or by the user's.
	shown bool
}

// subscription is one user following one upload, with a member for each of the user's connections. It
// changes with both locks held.
type subscription[C comparable, S any] struct {
	user   *user[C, S]
	upload *Upload[C, S]
	// first is the only member of a user with one connection. While the user has none, it holds a slot
	// without a connection, so that the upload knows its subscriber.
	first member[C, S]
	more  []*member[C, S]
	// claims counts the members that have claimed.
	claims int32
	// held: the subscription is claimed by the user as such.
	held bool
}

// newSubscription returns a subscription without members, perhaps one that ended before.
func (r *Registry[C, S]) newSubscription(u *user[C, S], up *Upload[C, S]) *subscription[C, S] {
	s, _ := r.ended.Get().(*subscription[C, S])
	if s == nil {
		s = new(subscription[C, S])
	}
	s.user, s.upload = u, up
	s.first = member[C, S]{sub: s, slot: none}
	return s
}

// leader is the member that stands for the subscription as a whole.
func (s *subscription[C, S]) leader() *member[C, S] {
	if s.first.slot == none && len(s.more) > 0 {
		return s.more[0]
	}
	return &s.first
}

// wait takes the slot of a user without a connection.
func (s *subscription[C, S]) wait() {
	var nobody C
	s.upload.place(&s.first, nobody)
}

// join makes a connection of the user a member and returns it.
func (s *subscription[C, S]) join(c C) *member[C, S] {
	var nobody C
	switch {
	case s.first.slot == none:
		s.upload.place(&s.first, c)
		return &s.first
	case s.upload.receivers[s.first.slot].Conn == nobody:
		s.upload.receivers[s.first.slot].Conn = c
		return &s.first
	default:
		m := &member[C, S]{sub: s, slot: none}
		s.more = append(s.more, m)
		s.upload.place(m, c)
		return m
	}
}

// member returns the part of one of the user's connections.
func (s *subscription[C, S]) member(c C) *member[C, S] {
	if s.is(&s.first, c) {
		return &s.first
	}
	for _, m := range s.more {
		if s.is(m, c) {
			return m
		}
	}
	return nil
}

func (s *subscription[C, S]) is(m *member[C, S], c C) bool {
	return m.slot != none && s.upload.receivers[m.slot].Conn == c
}

// leave takes a member out.
func (s *subscription[C, S]) leave(m *member[C, S]) {
	s.unclaim(m)
	s.upload.remove(m)
	for i, other := range s.more {
		if other == m {
			last := len(s.more) - 1
			s.more[i], s.more[last] = s.more[last], nil
			s.more = s.more[:last]
			return
		}
	}
}

func (s *subscription[C, S]) claim(m *member[C, S]) {
	if !m.claimed {
		m.claimed = true
		s.claims++
	}
}

func (s *subscription[C, S]) unclaim(m *member[C, S]) {
	if m.claimed {
		s.claims--
	}
	m.claimed, m.shown = false, false
}

// show marks the member as one that was given the upload's state, and reports whether that is new.
func (m *member[C, S]) show() bool {
	fresh := !m.shown
	m.shown = true
	return fresh
}

// wanted reports whether anything still claims the subscription.
func (s *subscription[C, S]) wanted() bool { return s.held || s.claims > 0 }

// dissolve takes all members out of the upload and leaves the subscription empty. Nothing refers to it or to
// its members any more, except the user.
func (s *subscription[C, S]) dissolve() {
	if s.first.slot != none {
		s.upload.remove(&s.first)
	}
	for _, m := range s.more {
		s.upload.remove(m)
	}
	s.upload.users--
	*s = subscription[C, S]{}
}

// subscriptionSet finds a user's subscriptions by upload. Nearly every user follows a few uploads, so it is
// a list first and becomes a map when looking through the list would take longer.
type subscriptionSet[C comparable, S any] struct {
	list []*subscription[C, S]
	byID map[string]*subscription[C, S]
}

// listed is the number of subscriptions up to which a list is searched.
const listed = 8

func (t *subscriptionSet[C, S]) len() int { return len(t.list) + len(t.byID) }

func (t *subscriptionSet[C, S]) find(uploadID string) *subscription[C, S] {
	for _, s := range t.list {
		if s.upload.key.id == uploadID {
			return s
		}
	}
	return t.byID[uploadID]
}

func (t *subscriptionSet[C, S]) add(s *subscription[C, S]) {
	if t.byID == nil && len(t.list) < listed {
		t.list = append(t.list, s)
		return
	}
	if t.byID == nil {
		t.byID = make(map[string]*subscription[C, S], 2*listed)
		for _, old := range t.list {
			t.byID[old.upload.key.id] = old
		}
		t.list = nil
	}
	t.byID[s.upload.key.id] = s
}

func (t *subscriptionSet[C, S]) remove(s *subscription[C, S]) {
	delete(t.byID, s.upload.key.id)
	for i, other := range t.list {
		if other == s {
			last := len(t.list) - 1
			t.list[i], t.list[last] = t.list[last], nil
			t.list = t.list[:last]
			return
		}
	}
}

// each calls fn for every subscription; fn may remove the one it was called with.
func (t *subscriptionSet[C, S]) each(fn func(*subscription[C, S])) {
	for i := len(t.list) - 1; i >= 0; i-- {
		fn(t.list[i])
	}
	for _, s := range t.byID {
		fn(s)
	}
}

package shard

// noSlot is the slot of a member without a receiver.
const noSlot = -1

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
	*s = member[C, S]{user: u, upload: up, slot: noSlot, first: true}
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
	case s.slot == noSlot:
		s.upload.place(s, c)
		return s
	case s.is(nobody):
		s.upload.receivers[s.slot].Conn = c
		return s
	default:
		m := &member[C, S]{user: s.user, upload: s.upload, slot: noSlot, next: s.next}
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

// subscriptionSet finds a user's subscriptions by upload. Nearly every user follows a few uploads, so it is
// a list first and becomes a map when looking through the list would take longer.
type subscriptionSet[C comparable, S any] struct {
	list []listing[C, S]
	// one is inline storage for the first.
	one  [1]listing[C, S]
	byID map[string]*member[C, S]
}

// listing is a subscription with the hash of its upload's id, so that a search reads the memory of its result only.
type listing[C comparable, S any] struct {
	hash uint64
	sub  *member[C, S]
}

// maxListed is the number of subscriptions up to which a list is searched.
const maxListed = 8

func (t *subscriptionSet[C, S]) len() int { return len(t.list) + len(t.byID) }

func (t *subscriptionSet[C, S]) find(k key) *member[C, S] {
	for _, l := range t.list {
		if l.hash == k.hash && l.sub.upload.id == k.id {
			return l.sub
		}
	}
	return t.byID[k.id]
}

func (t *subscriptionSet[C, S]) add(k key, s *member[C, S]) {
	if t.byID == nil && len(t.list) < maxListed {
		t.list = push(t.list, &t.one, listing[C, S]{k.hash, s})
		return
	}
	if t.byID == nil {
		t.byID = make(map[string]*member[C, S], 2*maxListed)
		for _, old := range t.list {
			t.byID[old.sub.upload.id] = old.sub
		}
		t.list = nil
	}
	t.byID[k.id] = s
}

func (t *subscriptionSet[C, S]) remove(s *member[C, S]) {
	delete(t.byID, s.upload.id)
	for i, other := range t.list {
		if other.sub == s {
			last := len(t.list) - 1
			t.list[i], t.list[last] = t.list[last], listing[C, S]{}
			t.list = t.list[:last]
			return
		}
	}
}

// each calls fn for every subscription; fn may remove the one it was called with.
func (t *subscriptionSet[C, S]) each(fn func(*member[C, S])) {
	for i := len(t.list) - 1; i >= 0; i-- {
		fn(t.list[i].sub)
	}
	for _, s := range t.byID {
		fn(s)
	}
}

// push is append for a list whose first element is stored inline. The list leaves the inline storage when it grows.
func push[T any](list []T, inline *[1]T, v T) []T {
	if list == nil {
		list = inline[:0]
	}
	list = append(list, v)
	if len(list) == len(inline)+1 {
		clear(inline[:]) // a copy left behind would keep a connection alive
	}
	return list
}

package shard

// subscriptionSet finds a user's subscriptions by upload. Nearly every user follows a few uploads, so it is
// a list first and becomes a map when looking through the list would take longer.
type subscriptionSet[C comparable, S any] struct {
	list []listing[C, S]
	// one is the room of the first.
	one  [1]listing[C, S]
	byID map[string]*member[C, S]
}

// listing is a subscription with the hash of its upload's id: looking for another one does not touch it.
type listing[C comparable, S any] struct {
	hash uint64
	sub  *member[C, S]
}

// listed is the number of subscriptions up to which a list is searched.
const listed = 8

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
	if t.byID == nil && len(t.list) < listed {
		t.list = push(t.list, &t.one, listing[C, S]{k.hash, s})
		return
	}
	if t.byID == nil {
		t.byID = make(map[string]*member[C, S], 2*listed)
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

// push is append to a list that begins in a room for one beside it, which it leaves for good when it grows.
func push[T any](list []T, room *[1]T, v T) []T {
	if list == nil {
		list = room[:0]
	}
	list = append(list, v)
	if len(list) == len(room)+1 {
		clear(room[:]) // a copy left behind would keep a connection alive
	}
	return list
}

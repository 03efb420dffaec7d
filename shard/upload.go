package shard

// Upload is the registry's record of one upload. Callbacks receive it with its lock held; State and the results of its
// methods must not be used after they return.
type Upload[C comparable, S any] struct {
	// The lock protects the fields below. No blocking call is allowed under it, and no user may be locked.
	lifetime
	// users counts the subscriptions.
	users int32
	id    string
	// State belongs to the caller.
	State     S
	receivers []Receiver[C, S]
	// one is inline storage for the first receiver.
	one [1]Receiver[C, S]
}

// Receiver is a slot of an upload. Conn is the zero value of its type if the subscribed user has no connection yet.
type Receiver[C comparable, S any] struct {
	Conn   C
	member *member[C, S]
}

// ID returns the upload's id.
func (u *Upload[C, S]) ID() string { return u.id }

func (u *Upload[C, S]) name() string { return u.id }

// Receivers returns a slot for each connection that receives the upload's messages. It must not be changed.
func (u *Upload[C, S]) Receivers() []Receiver[C, S] { return u.receivers }

// Subscribers returns how many users follow the upload.
func (u *Upload[C, S]) Subscribers() int { return int(u.users) }

// With calls fn with the upload and creates the upload if necessary.
func (r *Registry[C, S]) With(uploadID string, fn func(*Upload[C, S])) {
	u := r.lockUpload(r.key(uploadID))
	defer r.unlockUpload(u)
	fn(u)
}

// WithKnown calls fn with the upload if it exists, and reports whether it does.
func (r *Registry[C, S]) WithKnown(uploadID string, fn func(*Upload[C, S])) bool {
	u := r.lockKnown(r.key(uploadID))
	if u == nil {
		return false
	}
	defer r.unlockUpload(u)
	fn(u)
	return true
}

// EachUpload calls fn for every upload. Uploads that are added or removed concurrently may be omitted.
func (r *Registry[C, S]) EachUpload(fn func(*Upload[C, S])) {
	visit := func(u *Upload[C, S]) {
		if u.lockAlive() {
			defer r.unlockUpload(u)
			fn(u)
		}
	}
	for i := range r.shards {
		r.shards[i].uploads.each(visit)
	}
	r.collidingUploads.each(visit)
}

// SubscriberIDs returns the ids of the users that follow the upload, each once, in no order.
func (r *Registry[C, S]) SubscriberIDs(uploadID string) []string {
	var ids []string
	r.WithKnown(uploadID, func(u *Upload[C, S]) {
		ids = make([]string, 0, u.users)
		for _, slot := range u.receivers {
			if slot.member.first {
				ids = append(ids, slot.member.user.key.id)
			}
		}
	})
	return ids
}

// lockUpload returns the upload with its lock held, and creates it if necessary.
func (r *Registry[C, S]) lockUpload(k key) *Upload[C, S] {
	for {
		if u := r.lockKnown(k); u != nil {
			return u
		}
		r.shard(k.hash).uploads.loadOrAdd(k, func() *Upload[C, S] { return &Upload[C, S]{id: k.id} })
	}
}

// lockKnown returns the upload with its lock held, or nil if it does not exist.
func (r *Registry[C, S]) lockKnown(k key) *Upload[C, S] {
	uploads := r.shard(k.hash).uploads
	for {
		u, ok := uploads.load(k)
		if !ok || u.lockAlive() {
			return u
		}
	}
}

// unlockUpload releases the lock and removes the upload if it is empty.
func (r *Registry[C, S]) unlockUpload(u *Upload[C, S]) {
	if len(u.receivers) == 0 && r.idle(&u.State) {
		u.dead = true
		k := r.key(u.id)
		r.shard(k.hash).uploads.remove(k, u)
	}
	u.mu.Unlock()
}

// place assigns a slot to the member.
func (u *Upload[C, S]) place(m *member[C, S], c C) {
	m.slot = int32(len(u.receivers)) //nolint:gosec // a slot takes 24 bytes: 2^31 of them do not fit
	u.receivers = push(u.receivers, &u.one, Receiver[C, S]{c, m})
}

// remove releases the member's slot; the last slot moves into its place.
func (u *Upload[C, S]) remove(m *member[C, S]) {
	last := len(u.receivers) - 1
	moved := u.receivers[last]
	u.receivers[m.slot] = moved
	moved.member.slot = m.slot
	u.receivers[last] = Receiver[C, S]{}
	u.receivers = u.receivers[:last]
	m.slot = noSlot
	u.shrink()
}

// shrink releases memory once three quarters of it are unused, which keeps removal O(1) on average.
func (u *Upload[C, S]) shrink() {
	const worthwhile = 64
	if n := len(u.receivers); cap(u.receivers) > worthwhile && n <= cap(u.receivers)/4 {
		u.receivers = append(make([]Receiver[C, S], 0, 2*n), u.receivers...)
	}
}

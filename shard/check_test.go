package shard

import "slices"

// The tests' connections are numbers; 0 stands where no connection is. Their uploads have a number as state.
type (
	registry = Registry[int, int]
	tUser    = user[int, int]
	tUpload  = Upload[int, int]
	tMember  = member[int, int]
)

func newRegistry(shards int) *registry {
	return New(Config[int, int]{Shards: shards, Idle: func(state *int) bool { return *state == 0 }})
}

// tester is the common subset of testing.TB and rapid.TB.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// check fails unless all parts of the registry are consistent with each other. The registry must not be in use.
func check(t tester, r *registry) {
	t.Helper()
	var want Counts
	for i := range r.shards {
		s := &r.shards[i]
		connections, subscriptions := 0, 0
		s.users.each(func(u *tUser) {
			if k := u.key; u.dead || k != r.key(k.id) || r.shard(k.hash) != s || len(u.conns) == 0 && u.subs.len() == 0 {
				t.Fatalf("user %q has no business in the map of shard %d: %+v", k.id, i, u)
			}
			checkUser(t, r, u)
			connections += len(u.conns)
			subscriptions += u.subs.len()
		})
		if int64(connections) != s.connections.Load() || int64(subscriptions) != s.subscriptions.Load() {
			t.Fatalf("shard %d counts %d connections and %d subscriptions, there are %d and %d",
				i, s.connections.Load(), s.subscriptions.Load(), connections, subscriptions)
		}
		s.uploads.each(func(u *tUpload) {
			if u.dead || r.shard(r.key(u.id).hash) != s || len(u.receivers) == 0 && r.idle(&u.State) {
				t.Fatalf("upload %q has no business in the map of shard %d", u.id, i)
			}
			checkUpload(t, u)
			want.Uploads++
		})
		want.Connections += connections
		want.Subscriptions += subscriptions
		want.Users += s.users.byHash.Size()
	}
	var sum Counts
	for _, c := range r.ShardCounts() {
		sum.Connections += c.Connections
		sum.Users += c.Users
		sum.Uploads += c.Uploads
		sum.Subscriptions += c.Subscriptions
	}
	if len(r.ShardCounts()) != len(r.shards) || sum != want {
		t.Fatalf("the shards count %+v, contents %+v", sum, want)
	}
	want.Pending = checkPending(t, r)
	if got := r.Counts(); got != want {
		t.Fatalf("counts are %+v, contents %+v", got, want)
	}
}

// checkPending returns the number of users without a connection.
func checkPending(t tester, r *registry) int {
	t.Helper()
	n := 0
	for i := range r.shards {
		r.shards[i].users.each(func(u *tUser) {
			_, waits := r.pending.Load(u)
			if waits != (len(u.conns) == 0) {
				t.Fatalf("user %q has %d connections, waiting for one is %v", u.key.id, len(u.conns), waits)
			}
			if waits {
				n++
			}
		})
	}
	if int64(n) != r.waiting.Load() || n != r.pending.Size() {
		t.Fatalf("%d users wait; their number is said to be %d, and %d are listed", n, r.waiting.Load(), r.pending.Size())
	}
	return n
}

func checkUser(t tester, r *registry, u *tUser) {
	t.Helper()
	if ids, total := r.Subscriptions(u.key.id, 2); total != u.subs.len() || len(ids) != min(total, 2) {
		t.Fatalf("user %q: %d of %d subscriptions are listed, there are %d", u.key.id, len(ids), total, u.subs.len())
	}
	u.subs.each(func(s *tMember) {
		k := r.key(s.upload.id)
		up, known := r.shard(k.hash).uploads.load(k)
		if !known || up != s.upload || s.user != u || u.subs.find(k) != s {
			t.Fatalf("user %q: the subscription to %q is not that of the map", u.key.id, k.id)
		}
		if !s.wanted() {
			t.Fatalf("user %q: nothing claims the subscription to %q", u.key.id, k.id)
		}
		checkMembers(t, u, s)
	})
}

// checkMembers fails unless each connection of the user, and no other, has a member with a slot.
func checkMembers(t tester, u *tUser, s *tMember) {
	t.Helper()
	var conns []int
	for m := s; m != nil; m = m.next {
		slot := s.upload.receivers[m.slot]
		if slot.member != m || m.user != u || m.upload != s.upload || m.first != (m == s) || m.held != notHeld && !m.first {
			t.Fatalf("user %q: the member of %d in %q is %+v", u.key.id, slot.Conn, s.upload.id, m)
		}
		if slot.Conn != 0 || len(u.conns) > 0 {
			conns = append(conns, slot.Conn)
		}
	}
	slices.Sort(conns)
	if want := slices.Sorted(slices.Values(u.conns)); !slices.Equal(conns, want) {
		t.Fatalf("user %q has the connections %v, of which %v get %q", u.key.id, want, conns, s.upload.id)
	}
}

func checkUpload(t tester, u *tUpload) {
	t.Helper()
	users := map[*tUser]bool{}
	for i, slot := range u.receivers {
		if slot.member == nil || int(slot.member.slot) != i || slot.member.upload != u {
			t.Fatalf("upload %q: slot %d belongs to nobody", u.id, i)
		}
		users[slot.member.user] = true
	}
	if len(users) != int(u.users) {
		t.Fatalf("upload %q has %d users, said to be %d", u.id, len(users), u.users)
	}
	for i, slot := range u.receivers[len(u.receivers):cap(u.receivers)] {
		if slot != (Receiver[int, int]{}) {
			t.Fatalf("upload %q: slot %d is free and still keeps %+v", u.id, len(u.receivers)+i, slot)
		}
	}
	inside := cap(u.receivers) > 0 && &u.receivers[:1][0] == &u.one[0]
	if !inside && u.one[0] != (Receiver[int, int]{}) {
		t.Fatalf("upload %q: the room of the first receiver is left and still keeps %+v", u.id, u.one[0])
	}
}

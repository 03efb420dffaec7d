package shard

import "slices"

// The tests' connections are numbers; 0 stands where no connection is. Their uploads have a number as state.
type (
	registry = Registry[int, int]
	tUser    = user[int, int]
	tUpload  = Upload[int, int]
	tSub     = subscription[int, int]
	tMember  = member[int, int]
)

func newRegistry(shards int) *registry {
	return New(Config[int, int]{Shards: shards, Idle: func(state *int) bool { return *state == 0 }})
}

// tester is what tests of the testing package and of rapid have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// check fails unless everything in the registry agrees with everything else. Nobody else may use it meanwhile.
func check(t tester, r *registry) {
	t.Helper()
	var want Counts
	for i := range r.shards {
		s := &r.shards[i]
		connections, subscriptions := 0, 0
		s.users.Range(func(k key, u *tUser) bool {
			if u.dead || u.key != k || r.shard(k) != s || len(u.conns) == 0 && u.subs.len() == 0 {
				t.Fatalf("user %q has no business in the map of shard %d: %+v", k.id, i, u)
			}
			checkUser(t, r, u)
			connections += len(u.conns)
			subscriptions += u.subs.len()
			return true
		})
		if int64(connections) != s.connections.Load() || int64(subscriptions) != s.subscriptions.Load() {
			t.Fatalf("shard %d counts %d connections and %d subscriptions, there are %d and %d",
				i, s.connections.Load(), s.subscriptions.Load(), connections, subscriptions)
		}
		s.uploads.Range(func(k key, u *tUpload) bool {
			if u.dead || u.key != k || r.shard(k) != s || len(u.receivers) == 0 && r.idle(&u.State) {
				t.Fatalf("upload %q has no business in the map of shard %d", k.id, i)
			}
			checkUpload(t, u)
			want.Uploads++
			return true
		})
		want.Connections += connections
		want.Subscriptions += subscriptions
		want.Users += s.users.Size()
	}
	want.Pending = checkPending(t, r)
	if got := r.Counts(); got != want {
		t.Fatalf("counts are %+v, contents %+v", got, want)
	}
}

// checkPending returns the number of users that wait for a connection.
func checkPending(t tester, r *registry) int {
	t.Helper()
	n := 0
	for i := range r.shards {
		r.shards[i].users.Range(func(k key, u *tUser) bool {
			known, waits := r.pending.Load(k)
			if waits != (len(u.conns) == 0) || waits && known != u {
				t.Fatalf("user %q has %d connections, waiting for one is %v", k.id, len(u.conns), waits)
			}
			if waits {
				n++
			}
			return true
		})
	}
	if int64(n) != r.waiting.Load() || n != r.pending.Size() {
		t.Fatalf("%d users wait; their number is said to be %d, and %d are listed", n, r.waiting.Load(), r.pending.Size())
	}
	return n
}

func checkUser(t tester, r *registry, u *tUser) {
	t.Helper()
	u.subs.each(func(s *tSub) {
		up, known := r.shard(s.upload.key).uploads.Load(s.upload.key)
		if !known || up != s.upload || s.user != u || u.subs.find(up.key.id) != s {
			t.Fatalf("user %q: the subscription to %q is not that of the map", u.key.id, s.upload.key.id)
		}
		if !s.wanted() {
			t.Fatalf("user %q: nothing claims the subscription to %q", u.key.id, up.key.id)
		}
		checkMembers(t, u, s)
	})
}

// checkMembers fails unless each connection of the user has a member with a slot, and nobody else.
func checkMembers(t tester, u *tUser, s *tSub) {
	t.Helper()
	var conns []int
	claims := int32(0)
	for _, m := range append([]*tMember{&s.first}, s.more...) {
		if m.slot == none {
			continue
		}
		slot := s.upload.receivers[m.slot]
		if slot.member != m || m.sub != s {
			t.Fatalf("user %q: the slot of %d in %q belongs to somebody else", u.key.id, slot.Conn, s.upload.key.id)
		}
		if slot.Conn != 0 {
			conns = append(conns, slot.Conn)
		}
		if m.claimed {
			claims++
		}
	}
	slices.Sort(conns)
	if want := slices.Sorted(slices.Values(u.conns)); !slices.Equal(conns, want) || claims != s.claims {
		t.Fatalf("user %q has the connections %v, of which %v get %q; claims are %d, said to be %d",
			u.key.id, want, conns, s.upload.key.id, claims, s.claims)
	}
	if len(u.conns) == 0 && s.first.slot == none {
		t.Fatalf("user %q waits, but has no slot in %q", u.key.id, s.upload.key.id)
	}
}

func checkUpload(t tester, u *tUpload) {
	t.Helper()
	users := map[*tUser]bool{}
	for i, slot := range u.receivers {
		if slot.member == nil || int(slot.member.slot) != i || slot.member.sub.upload != u {
			t.Fatalf("upload %q: slot %d belongs to nobody", u.key.id, i)
		}
		users[slot.member.sub.user] = true
	}
	if len(users) != int(u.users) {
		t.Fatalf("upload %q has %d users, said to be %d", u.key.id, len(users), u.users)
	}
	for i, slot := range u.receivers[len(u.receivers):cap(u.receivers)] {
		if slot != (Receiver[int, int]{}) {
			t.Fatalf("upload %q: slot %d is free and still keeps %+v", u.key.id, len(u.receivers)+i, slot)
		}
	}
	inside := cap(u.receivers) > 0 && &u.receivers[:1][0] == &u.one[0]
	if !inside && u.one[0] != (Receiver[int, int]{}) {
		t.Fatalf("upload %q: the room of the first receiver is left and still keeps %+v", u.key.id, u.one[0])
	}
}

package shard

import (
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// ledger replays the changes of claims that a registry reports.
type ledger struct {
	t      tester
	claims map[int]map[string]bool
	// follows is the last reported state of the user's other claims.
	follows bool
	// receives are the deliveries at the last call of wantLeft, left those reported as ended since.
	receives map[delivery]bool
	left     []delivery
}

func (l *ledger) change(c int, up *tUpload, change Change, follows bool) {
	claims := l.claims[c]
	if claims[up.ID()] == (change == Claimed) {
		l.t.Fatalf("connection %d: change %d of %q, but claimed is %v", c, change, up.ID(), claims[up.ID()])
	}
	if claims == nil {
		claims = map[string]bool{}
		l.claims[c] = claims
	}
	claims[up.ID()] = change == Claimed
	l.follows = follows
}

// want fails unless the reported changes add up to a connection's claims.
func (l *ledger) want(r *registry, user string, c int) {
	var reported []string
	for id, claimed := range l.claims[c] {
		if claimed {
			reported = append(reported, id)
		}
	}
	slices.Sort(reported)
	if held := slices.Sorted(slices.Values(r.Claims(user, c))); !slices.Equal(held, reported) {
		l.t.Fatalf("connection %d claims %q, the changes add up to %q", c, held, reported)
	}
}

// Each change of a claim is reported once, in order, by whichever call it was made.
func TestRegistry_ReportsEachChangeOfAClaimOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &ledger{t: t, claims: map[int]map[string]bool{}}
		r := New(Config[int, int]{Shards: 1, Claim: l.change, Left: l.leave})
		pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "number") }
		const users, conns = 2, 3
		user := func(c int) string { return "user " + strconv.Itoa(c%users) }
		upload := func() string { return "upload " + strconv.Itoa(pick(4)) }
		conn := func() int { return 1 + pick(users*conns) }
		on := func(do func(c int)) func(*rapid.T) { return func(*rapid.T) { do(conn()) } }
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) {
				for c := 1; c <= users*conns; c++ {
					l.want(r, user(c), c)
				}
				l.wantLeft(r)
				check(t, r)
			},
			"Connect": on(func(c int) {
				_, _, _ = r.Connect(user(c), c, 2, func([]int) int { return 0 }, func(*tUpload) {})
			}),
			"Disconnect": on(func(c int) { r.Disconnect(user(c), c) }),
			"Claim":      on(func(c int) { _ = r.SubscribeConn(user(c), c, upload(), 3, func(*tUpload, bool) {}) }),
			"Unclaim": on(func(c int) {
				id := upload()
				if r.UnsubscribeConn(user(c), c, id) && slices.Contains(r.SubscriberIDs(id), user(c)) != l.follows {
					t.Fatalf("the user follows %q apart from the ended claim: %v", id, l.follows)
				}
			}),
			"Hold": on(func(c int) { _ = r.SubscribeUser(user(c), upload(), 3, 0, 1, func(*tUpload, int) {}) }),
			"Drop": on(func(c int) { r.UnsubscribeUser(user(c), upload()) }),
		})
	})
}

// delivery is an upload whose messages a connection receives.
type delivery struct {
	conn   int
	upload string
}

func (l *ledger) leave(c int, up *tUpload) { l.left = append(l.left, delivery{c, up.ID()}) }

// wantLeft checks that the connections which ceased to receive an upload since the last call were reported once each.
func (l *ledger) wantLeft(r *Registry[int, int]) {
	receives := map[delivery]bool{}
	r.EachUpload(func(up *tUpload) {
		for _, slot := range up.Receivers() {
			receives[delivery{slot.Conn, up.ID()}] = slot.Conn != 0
		}
	})
	for d, received := range l.receives {
		if received && !receives[d] && !slices.Contains(l.left, d) {
			l.t.Fatalf("%+v has ended, reported were %+v", d, l.left)
		}
	}
	for i, d := range l.left {
		if !l.receives[d] || receives[d] || slices.Contains(l.left[:i], d) {
			l.t.Fatalf("%+v was reported in vain", d)
		}
	}
	l.receives, l.left = receives, nil
}

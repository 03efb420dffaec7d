package shard

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// shows records the connections that were shown an upload.
type shows []string

func (s *shows) claimed(u *tUpload, fresh bool) {
	*s = append(*s, fmt.Sprintf("claim %s %v", u.ID(), fresh))
}

func (s *shows) held(u *tUpload, c int) { *s = append(*s, fmt.Sprintf("hold %s %d", u.ID(), c)) }

func (s *shows) connected(u *tUpload) { *s = append(*s, "connect "+u.ID()) }

func (s *shows) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(*s, want) {
		t.Errorf("shown were %q, want %q", *s, want)
	}
	*s = nil
}

func wantReceivers(t *testing.T, r *registry, want ...int) {
	t.Helper()
	times, slots, _ := receivers(r)
	if slots != len(want) {
		t.Errorf("there are %d receivers, want %v", slots, want)
	}
	for _, c := range want {
		if times[c] != 1 {
			t.Errorf("connection %d has %d slots, want 1", c, times[c])
		}
	}
	check(t, r)
}

func TestClaim_CoversAllConnectionsOfUser(t *testing.T) {
	r, shown := newRegistry(1), shows{}
	r.Connect("ann", 1, 0, nil, shown.connected)
	r.Connect("ann", 2, 0, nil, shown.connected)
	must(t, r.SubscribeConn("ann", 1, "cat", 0, shown.claimed))
	wantReceivers(t, r, 1, 2)
	must(t, r.SubscribeConn("ann", 1, "cat", 0, shown.claimed))
	must(t, r.SubscribeConn("ann", 2, "cat", 0, shown.claimed))
	shown.want(t, "claim cat true", "claim cat false", "claim cat true")
	r.Connect("ann", 3, 0, nil, shown.connected)
	shown.want(t)
	wantReceivers(t, r, 1, 2, 3)
	if ids := r.SubscriberIDs("cat"); !slices.Equal(ids, []string{"ann"}) {
		t.Errorf("subscribers are %q", ids)
	}
}

// A subscription ends with the explicit end of its last claim. A connection that ends by itself leaves its claim to its
// user, until the user's last connection ends.
func TestRegistry_ClaimsOfEndedConnectionsPassToTheUser(t *testing.T) {
	r, shown := newRegistry(1), shows{}
	for c := 1; c <= 3; c++ {
		r.Connect("ann", c, 0, nil, shown.connected)
	}
	must(t, r.SubscribeConn("ann", 1, "cat", 0, shown.claimed))
	must(t, r.SubscribeConn("ann", 2, "cat", 0, shown.claimed))
	if !r.UnsubscribeConn("ann", 1, "cat") || r.UnsubscribeConn("ann", 1, "cat") {
		t.Error("UnsubscribeConn does not say whether there was a claim")
	}
	wantReceivers(t, r, 1, 2, 3)
	r.Disconnect("ann", 2)
	wantReceivers(t, r, 1, 3)
	r.Disconnect("ann", 1)
	wantReceivers(t, r, 3)
	r.Disconnect("ann", 3)
	wantReceivers(t, r)
	if got, want := r.Counts(), (Counts{}); got != want {
		t.Errorf("counts are %+v, want %+v", got, want)
	}

	r.Connect("bob", 4, 0, nil, shown.connected)
	must(t, r.SubscribeConn("bob", 4, "cat", 0, shown.claimed))
	r.UnsubscribeConn("bob", 4, "cat")
	if got, want := r.Counts(), (Counts{Connections: 1, Users: 1}); got != want {
		t.Errorf("counts are %+v, want %+v", got, want)
	}
}

// Subscriptions that a user has only from connections that have ended are removed first at the user's limit.
func TestRegistry_InheritedClaimsGiveWayAtTheLimit(t *testing.T) {
	r, shown := newRegistry(1), shows{}
	r.Connect("ann", 1, 0, nil, shown.connected)
	r.Connect("ann", 2, 0, nil, shown.connected)
	must(t, r.SubscribeConn("ann", 2, "kept", 3, shown.claimed))
	must(t, r.SubscribeConn("ann", 1, "kept", 3, shown.claimed))
	must(t, r.SubscribeConn("ann", 1, "a", 3, shown.claimed))
	must(t, r.SubscribeConn("ann", 1, "b", 3, shown.claimed))
	r.Disconnect("ann", 1)
	if n := r.Counts().Subscriptions; n != 3 {
		t.Fatalf("%d subscriptions are left, want 3", n)
	}
	admitted, _ := r.Admissible("ann", 2, []string{"c", "a", "d"}, 3)
	if !slices.Equal(admitted, []string{"c", "a"}) {
		t.Errorf("admissible are %q", admitted)
	}
	must(t, r.SubscribeConn("ann", 2, "c", 3, shown.claimed))
	must(t, r.SubscribeConn("ann", 2, "d", 3, shown.claimed))
	if err := r.SubscribeConn("ann", 2, "e", 3, shown.claimed); !errors.Is(err, ErrLimit) {
		t.Errorf("subscribing beyond the limit: %v", err)
	}
}

func TestRelease_KeepsConnectionsOwnSubscription(t *testing.T) {
	r, shown := newRegistry(1), shows{}
	r.Connect("ann", 1, 0, nil, shown.connected)
	must(t, r.SubscribeConn("ann", 1, "cat", 0, shown.claimed))
	r.Connect("ann", 2, 0, nil, shown.connected)
	must(t, r.SubscribeUser("ann", "cat", 0, 0, 0, shown.held))
	shown.want(t, "claim cat true", "hold cat 2")
	r.UnsubscribeConn("ann", 1, "cat")
	wantReceivers(t, r, 1, 2)
	r.Connect("ann", 3, 0, nil, shown.connected)
	shown.want(t, "connect cat")
	if !r.UnsubscribeUser("ann", "cat") || r.UnsubscribeUser("ann", "cat") {
		t.Error("Drop does not say whether there was a subscription")
	}
	wantReceivers(t, r)
}

func TestClaim_PendingUntilConnect(t *testing.T) {
	r, shown := newRegistry(1), shows{}
	must(t, r.SubscribeUser("ann", "cat", 0, 0, 5, shown.held))
	shown.want(t)
	wantReceivers(t, r, 0)
	if ids := r.SubscriberIDs("cat"); !slices.Equal(ids, []string{"ann"}) {
		t.Errorf("subscribers are %q", ids)
	}
	if got := r.Counts().Pending; got != 1 {
		t.Errorf("%d users wait, want 1", got)
	}
	r.Connect("ann", 1, 0, nil, shown.connected)
	shown.want(t, "connect cat")
	wantReceivers(t, r, 1)
	if r.ExpirePending(100) != 0 || r.Counts().Pending != 0 {
		t.Error("a user with a connection still waits for one")
	}
}

func TestExpirePending_SparesConnectedUsers(t *testing.T) {
	r := newRegistry(4)
	for i, user := range []string{"ann", "bob", "cem"} {
		must(t, r.SubscribeUser(user, "cat", 0, 0, 0, nil))
		must(t, r.SubscribeUser(user, "dog", 0, 0, int64(i), nil))
	}
	if n := r.ExpirePending(2); n != 2 {
		t.Errorf("%d users expired, want 2", n)
	}
	check(t, r)
	if ids := r.SubscriberIDs("cat"); !slices.Equal(ids, []string{"cem"}) {
		t.Errorf("subscribers are %q, want cem", ids)
	}
}

func TestClaim_RefusalDoesNotProlongPending(t *testing.T) {
	r := newRegistry(1)
	must(t, r.SubscribeUser("ann", "cat", 1, 0, 1, nil))
	wantError(t, ErrLimit, r.SubscribeUser("ann", "dog", 1, 0, 5, nil))
	if n := r.ExpirePending(2); n != 1 {
		t.Errorf("%d users expired, want the one that has waited since 1", n)
	}
	check(t, r)
}

func TestRegistry_Refusals(t *testing.T) {
	r := newRegistry(1)
	nobody := func(*tUpload, bool) { t.Error("a refused claim entered") }
	wantError(t, ErrUnknown, r.SubscribeConn("ann", 1, "cat", 0, nobody))
	r.Connect("ann", 1, 0, nil, nil)
	wantError(t, ErrUnknown, r.SubscribeConn("ann", 2, "cat", 0, nobody))
	must(t, r.SubscribeConn("ann", 1, "cat", 1, func(*tUpload, bool) {}))
	wantError(t, ErrLimit, r.SubscribeConn("ann", 1, "dog", 1, nobody))
	wantError(t, ErrLimit, r.SubscribeUser("ann", "dog", 1, 1, 0, nil))
	must(t, r.SubscribeUser("bob", "cat", 1, 1, 0, nil))
	wantError(t, ErrLimit, r.SubscribeUser("bob", "dog", 1, 1, 0, nil))
	wantError(t, ErrPending, r.SubscribeUser("cem", "cat", 1, 1, 0, nil))
	check(t, r)
	r.UnsubscribeUser("bob", "cat")
	must(t, r.SubscribeUser("cem", "cat", 1, 1, 0, nil))
	check(t, r)
	if r.UnsubscribeConn("dan", 1, "cat") || r.UnsubscribeConn("ann", 1, "dog") || r.UnsubscribeUser("dan", "cat") || r.Disconnect("dan", 1) {
		t.Error("something that was not there was taken away")
	}
	check(t, r)
}

// At the limit the caller chooses the connection to close, or none.
func TestRegistry_ConnectAtTheLimit(t *testing.T) {
	r, shown := newRegistry(1), shows{}
	refuse := func([]int) int { return -1 }
	for c := 1; c <= 3; c++ {
		if _, evicted, err := r.Connect("ann", c, 3, refuse, nil); evicted || err != nil {
			t.Errorf("connection %d: %v, %v", c, evicted, err)
		}
	}
	must(t, r.SubscribeConn("ann", 1, "cat", 0, shown.claimed))
	if _, evicted, err := r.Connect("ann", 3, 3, refuse, nil); evicted || err != nil {
		t.Errorf("connecting again: %v, %v", evicted, err)
	}
	if _, _, err := r.Connect("ann", 4, 3, refuse, nil); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	second := func(conns []int) int { return slices.Index(conns, 2) }
	if old, evicted, err := r.Connect("ann", 4, 3, second, nil); !evicted || old != 2 || err != nil {
		t.Errorf("evicted is %d, %v, %v, want the second", old, evicted, err)
	}
	r.WithConnections("ann", func(conns []int) {
		if !slices.Equal(conns, []int{1, 3, 4}) {
			t.Errorf("connections are %v", conns)
		}
	})
}

func TestUser_ManySubscriptions(t *testing.T) {
	r := newRegistry(2)
	r.Connect("ann", 1, 0, nil, nil)
	const n = 5 * maxListed
	for i := range n {
		must(t, r.SubscribeConn("ann", 1, fmt.Sprint(i), n, func(*tUpload, bool) {}))
		u := r.lockUser("ann", false)
		if isMap := u.subs.byID != nil; isMap != (i >= maxListed) || u.subs.len() != i+1 {
			t.Errorf("%d subscriptions, kept as a map is %v", u.subs.len(), isMap)
		}
		r.unlockUser(u)
		check(t, r)
	}
	for i := range n {
		if !r.UnsubscribeConn("ann", 1, fmt.Sprint((i*7)%n)) {
			t.Errorf("subscription %d was not found", (i*7)%n)
		}
		check(t, r)
	}
	must(t, r.SubscribeConn("ann", 1, "again", n, func(*tUpload, bool) {}))
	must(t, r.SubscribeConn("ann", 1, "and again", n, func(*tUpload, bool) {}))
	r.Disconnect("ann", 1)
	empty(t, r)
}

func TestEachConnection_MayCallRegistry(t *testing.T) {
	r := newRegistry(4)
	for c := range 50 {
		r.Connect(fmt.Sprint("user ", c/3), c+1, 0, nil, nil)
	}
	r.EachConnection(func(user string, c int) {
		if !r.Disconnect(user, c) {
			t.Errorf("connection %d is not one of %s", c, user)
		}
	})
	empty(t, r)
}

func must(t *testing.T, err error) {
	t.Helper()
	wantError(t, nil, err)
}

func wantError(t *testing.T, want, got error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

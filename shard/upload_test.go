package shard

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
)

// follow connects n users with a connection each and makes them follow one upload.
func follow(t *testing.T, r *registry, n int) {
	t.Helper()
	for i := 1; i <= n; i++ {
		user := fmt.Sprint("user ", i)
		r.Connect(user, i, 0, nil, nil)
		if err := r.SubscribeConn(user, i, "cat", 0, func(*tUpload, bool) {}); err != nil {
			t.Fatal(err)
		}
	}
}

// receivers returns how often each connection appears among the receivers, and the number of slots and their capacity.
func receivers(r *registry) (times map[int]int, slots, room int) {
	times = map[int]int{}
	r.WithKnown("cat", func(u *tUpload) {
		for _, slot := range u.Receivers() {
			times[slot.Conn]++
		}
		slots, room = len(u.receivers), cap(u.receivers)
	})
	return times, slots, room
}

func TestReceivers_LeaveInAnyOrder(t *testing.T) {
	const n = 2000
	r := newRegistry(4)
	follow(t, r, n)
	left := map[int]bool{}
	for i := range n {
		left[i+1] = true
	}
	for step, i := range rand.Perm(n) {
		r.Disconnect(fmt.Sprint("user ", i+1), i+1)
		delete(left, i+1)
		if step%200 > 0 {
			continue
		}
		check(t, r)
		times, slots, _ := receivers(r)
		if slots != len(left) {
			t.Fatalf("there are %d slots for %d connections", slots, len(left))
		}
		for c := range left {
			if times[c] != 1 {
				t.Fatalf("connection %d has %d slots", c, times[c])
			}
		}
	}
	if got := r.Counts(); got != (Counts{}) {
		t.Errorf("left over are %+v", got)
	}
}

func TestReceivers_CapacityShrinks(t *testing.T) {
	const n, stay = 2000, 10
	r := newRegistry(1)
	follow(t, r, n)
	_, _, before := receivers(r)
	for i := n; i > stay; i-- {
		r.Disconnect(fmt.Sprint("user ", i), i)
	}
	_, slots, room := receivers(r)
	if before < n || slots != stay || room > 64 {
		t.Errorf("%d receivers have room for %d; it was %d for %d", slots, room, before, n)
	}
	check(t, r)
	follow(t, r, n)
	check(t, r)
}

func TestUpload_StaysWhileItHasState(t *testing.T) {
	r := newRegistry(1)
	r.With("cat", func(u *tUpload) { u.State = 7 })
	if !r.WithKnown("cat", func(u *tUpload) {
		if u.State != 7 || u.ID() != "cat" || u.Subscribers() != 0 {
			t.Errorf("the upload is %+v", u)
		}
		u.State = 0
	}) {
		t.Fatal("an upload with a state was forgotten")
	}
	if r.WithKnown("cat", func(*tUpload) {}) || r.Counts().Uploads != 0 {
		t.Error("an upload without subscribers and state was kept")
	}
}

func TestWith_CreatesAndForgetsUpload(t *testing.T) {
	r := New(Config[int, int]{Shards: 1}) // without Idle no state is worth keeping
	r.With("cat", func(u *Upload[int, int]) { u.State = 7 })
	if got := r.Counts(); got != (Counts{}) {
		t.Errorf("left over are %+v", got)
	}
}

func TestEachUpload_VisitsAll(t *testing.T) {
	r := newRegistry(4)
	for i := range 100 {
		r.With(fmt.Sprint(i), func(u *tUpload) { u.State = 1 })
	}
	seen := map[string]int{}
	r.EachUpload(func(u *tUpload) {
		seen[u.ID()]++
		u.State = 0
	})
	if len(seen) != 100 || r.Counts().Uploads != 0 {
		t.Errorf("visited %d of 100 uploads, %d are left", len(seen), r.Counts().Uploads)
	}
}

// Flush is called before any change of an upload's receivers and before the callback of a subscription, and not for
// other callers.
func TestUpload_FlushPrecedesChanges(t *testing.T) {
	const deferred, flushed = 7, 8
	receivers := 0
	r := New(Config[int, int]{
		Shards: 1,
		Idle:   func(state *int) bool { return *state == 0 },
		Flush: func(u *tUpload) {
			if u.State == deferred && len(u.Receivers()) != receivers {
				t.Errorf("%d receivers at the flush, want %d as before", len(u.Receivers()), receivers)
			}
			u.State = flushed
		},
	})
	r.Connect("ann", 1, 0, nil, nil)
	wantFlushed := func(u *tUpload) {
		if u.State != flushed {
			t.Error("a callback precedes the flush")
		}
	}
	follow := func() { must(t, r.SubscribeUser("ann", "cat", 0, 0, 0, func(u *tUpload, _ int) { wantFlushed(u) })) }
	for name, test := range map[string]struct {
		do   func()
		want int
	}{
		"With":       {func() { r.With("cat", func(*tUpload) {}) }, deferred},
		"WithKnown":  {func() { r.WithKnown("cat", func(*tUpload) {}) }, deferred},
		"EachUpload": {func() { r.EachUpload(func(*tUpload) {}) }, deferred},
		"Admissible": {func() { r.Admissible("ann", 1, []string{"cat"}, 9) }, deferred},
		"Claims":     {func() { r.Claims("ann", 1) }, deferred},

		"SubscribeUser of another": {func() {
			must(t, r.SubscribeUser("bob", "cat", 0, 0, 0, func(*tUpload, int) {}))
		}, flushed},
		"SubscribeUser": {follow, flushed},
		"SubscribeConn": {func() {
			must(t, r.SubscribeConn("ann", 1, "cat", 0, func(u *tUpload, _ bool) { wantFlushed(u) }))
		}, flushed},
		"UnsubscribeConn": {func() { r.UnsubscribeConn("ann", 1, "cat") }, flushed},
		"UnsubscribeUser": {func() { r.UnsubscribeUser("ann", "cat") }, flushed},
		"Connect":         {func() { r.Connect("ann", 2, 0, nil, wantFlushed) }, flushed},
		"Disconnect":      {func() { r.Disconnect("ann", 2) }, flushed},
	} {
		r.Connect("ann", 2, 0, nil, func(*tUpload) {})
		follow()
		if name == "Connect" {
			r.Disconnect("ann", 2)
		}
		r.With("cat", func(u *tUpload) {
			u.State = deferred
			receivers = len(u.Receivers())
		})
		test.do()
		r.With("cat", func(u *tUpload) {
			if u.State != test.want {
				t.Errorf("after %s, the state is %d, want %d", name, u.State, test.want)
			}
		})
		r.UnsubscribeUser("bob", "cat")
	}
}

// A subscription that waits for the lock of an upload while its last subscription ends is one of the upload that follows.
func TestUpload_SubscriptionDuringItsEndIsKept(t *testing.T) {
	nothing := func(*Upload[int, int], bool) {}
	for range 200 {
		var ending atomic.Bool
		begun, done := make(chan struct{}), make(chan error)
		r := New(Config[int, int]{Shards: 1, Idle: func(*int) bool {
			if ending.CompareAndSwap(true, false) {
				close(begun)
				for range 50 { // mostly enough for the other goroutine to wait for the lock
					runtime.Gosched()
				}
			}
			return true
		}})
		for c, user := range []string{"ann", "bob"} {
			if _, _, err := r.Connect(user, c, 0, nil, func(*Upload[int, int]) {}); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.SubscribeConn("ann", 0, "cat", 0, nothing); err != nil {
			t.Fatal(err)
		}
		ending.Store(true)
		go func() {
			<-begun
			done <- r.SubscribeConn("bob", 1, "cat", 0, nothing)
		}()
		r.UnsubscribeConn("ann", 0, "cat")
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := r.SubscriberIDs("cat"); !slices.Equal(got, []string{"bob"}) {
			t.Fatalf("the subscribers are %v, want bob", got)
		}
	}
}

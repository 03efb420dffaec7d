package shard

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// deeds are random operations on few users, connections and uploads, so that they often conflict. pick returns a number
// in [0, n).
func deeds(r *registry, pick func(n int) int) map[string]func() {
	const limit, pending = 9, 3
	user := func() string { return "user " + strconv.Itoa(pick(5)) }
	upload := func() string { return "upload " + strconv.Itoa(pick(12)) }
	conn := func() int { return 1 + pick(4) }
	return map[string]func(){
		"Connect":    func() { _, _, _ = r.Connect(user(), conn(), 3, func([]int) int { return 0 }, func(*tUpload) {}) },
		"Disconnect": func() { r.Disconnect(user(), conn()) },
		"Claim":      func() { _ = r.SubscribeConn(user(), conn(), upload(), limit, func(*tUpload, bool) {}) },
		"Unclaim":    func() { r.UnsubscribeConn(user(), conn(), upload()) },
		"Hold":       func() { _ = r.SubscribeUser(user(), upload(), limit, pending, int64(pick(4)), func(*tUpload, int) {}) },
		"Drop":       func() { r.UnsubscribeUser(user(), upload()) },
		"Expire":     func() { r.ExpirePending(int64(pick(4))) },
		"With":       func() { r.With(upload(), func(u *tUpload) { u.State = pick(2) }) },
		"WithKnown":  func() { r.WithKnown(upload(), func(u *tUpload) { u.State = pick(2) }) },
		"Look": func() {
			r.SubscriberIDs(upload())
			r.WithConnections(user(), func([]int) {})
			r.EachConnection(func(string, int) {})
			r.EachUpload(func(*tUpload) {})
			r.Counts()
		},
	}
}

// empty removes everything and fails if anything remains.
func empty(t tester, r *registry) {
	t.Helper()
	r.EachConnection(func(user string, c int) { r.Disconnect(user, c) })
	r.ExpirePending(1 << 62)
	r.EachUpload(func(u *tUpload) { u.State = 0 })
	check(t, r)
	if got := r.Counts(); got != (Counts{}) {
		t.Fatalf("left over are %+v", got)
	}
}

func TestRegistry_RandomOperationsStayConsistent(t *testing.T) { rapid.Check(t, anyOperations) }

// FuzzOperations is the same with operations that a fuzzer chooses.
func FuzzOperations(f *testing.F) { f.Fuzz(rapid.MakeFuzz(anyOperations)) }

func anyOperations(t *rapid.T) {
	r := newRegistry(rapid.SampledFrom([]int{1, 4}).Draw(t, "shards"))
	do := deeds(r, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "number") })
	actions := map[string]func(*rapid.T){"": func(t *rapid.T) { check(t, r) }}
	for name, deed := range do {
		actions[name] = func(*rapid.T) { deed() }
	}
	t.Repeat(actions)
	empty(t, r)
}

// TestInvariant3NothingIsLeft has many goroutines interleave everything that the registry can do.
func TestInvariant3NothingIsLeft(t *testing.T) {
	r := newRegistry(2)
	for range 8 {
		var work sync.WaitGroup
		for range 8 {
			work.Go(func() {
				do := deeds(r, rand.IntN)
				names := slices.Sorted(maps.Keys(do))
				for range 250 {
					do[names[rand.IntN(len(names))]]()
				}
			})
		}
		work.Wait()
		check(t, r)
	}
	empty(t, r)
}

// TestInvariant3ConnectedUserIsPresent has users join and leave one upload so quickly that it is removed and created again
// all the time. A user that joined must be found in the current upload, not in a removed one.
func TestInvariant3ConnectedUserIsPresent(t *testing.T) {
	r := newRegistry(1)
	var work sync.WaitGroup
	for c := 1; c <= 4; c++ {
		user := "user " + strconv.Itoa(c/2) // of two users one has two connections
		work.Go(func() {
			for range 2000 {
				r.Connect(user, c, 0, nil, func(*tUpload) {})
				must(t, r.SubscribeConn(user, c, "cat", 0, func(*tUpload, bool) {}))
				found := false
				r.WithKnown("cat", func(u *tUpload) {
					found = slices.ContainsFunc(u.Receivers(), func(slot Receiver[int, int]) bool { return slot.Conn == c })
				})
				if !found {
					t.Errorf("connection %d is not there", c)
					return
				}
				r.Disconnect(user, c)
			}
		})
	}
	work.Wait()
	empty(t, r)
}

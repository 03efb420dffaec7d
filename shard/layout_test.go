package shard

import (
	"math"
	"runtime"
	"testing"
	"unsafe"
)

// state has the size of the manager's state of an upload: two pointers.
type state struct{ _, _ *int }

// conn is an interface, like the manager's connections.
type conn interface{ Send() }

func TestLayout_ShardFillsCacheLines(t *testing.T) {
	if size := unsafe.Sizeof(Shard[conn, state]{}); size == 0 || size%cacheLine != 0 {
		t.Errorf("a shard has %d bytes, want a multiple of %d", size, cacheLine)
	}
}

// TestLayout_ObjectsStayWithinBudget asserts the allocator's size classes: one byte more costs the next one.
func TestLayout_ObjectsStayWithinBudget(t *testing.T) {
	for _, object := range []struct {
		name         string
		size, atMost uintptr
	}{
		{"an upload with one receiver", unsafe.Sizeof(Upload[conn, state]{}), 96},
		{"a receiver", unsafe.Sizeof(Receiver[conn, state]{}), 24},
		{"a member of a subscription", unsafe.Sizeof(member[conn, state]{}), 32},
		{"a user with one connection and one subscription", unsafe.Sizeof(user[conn, state]{}), 128},
	} {
		if object.size > object.atMost {
			t.Errorf("%s has %d bytes, at most %d are planned", object.name, object.size, object.atMost)
		}
	}
}

func TestLayout_SingleReceiverIsInline(t *testing.T) {
	r := newRegistry(1)
	r.Connect("ann", 1, 0, nil, nil)
	if err := r.SubscribeConn("ann", 1, "cat", 0, func(*tUpload, bool) {}); err != nil {
		t.Fatal(err)
	}
	r.WithKnown("cat", func(u *tUpload) {
		if &u.receivers[0] != &u.one[0] || !u.receivers[0].member.first {
			t.Error("the receiver or its member has been allocated by itself")
		}
	})
}

func TestNew_NumberOfShards(t *testing.T) {
	for want, expected := range map[int]int{1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 1000: 1024} {
		if got := len(newRegistry(want).shards); got != expected {
			t.Errorf("asked for %d shards there are %d, want %d", want, got, expected)
		}
	}
	if n, bits := numberOfShards(math.MaxInt); n != MaxShards || 1<<bits != n {
		t.Errorf("at most there are %d shards, 2^%d, want %d", n, bits, MaxShards)
	}
	if got, cores := len(newRegistry(0).shards), runtime.GOMAXPROCS(0); got < 4*cores || got >= 8*cores || got&(got-1) != 0 {
		t.Errorf("by default there are %d shards for %d cores", got, cores)
	}
}

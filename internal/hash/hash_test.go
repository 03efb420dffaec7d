package hash

import (
	"fmt"
	"math/bits"
	"testing"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSumIsTheSameForTheSameSeed(t *testing.T) {
	for _, id := range []string{"", "a", "upload-1", string(make([]byte, 255))} {
		if New(7).Sum(id) != New(7).Sum(id) {
			t.Errorf("two hashers of one seed disagree about %q", id)
		}
		if New(7).Sum(id) == New(8).Sum(id) {
			t.Errorf("hashers of two seeds agree about %q", id)
		}
	}
}

// TestSumIsXXHash holds the hash to that of the library where it has no seed.
func TestSumIsXXHash(t *testing.T) {
	for _, id := range []string{"", "a", "upload-1", string(make([]byte, 255))} {
		if got, want := New(0).Sum(id), xxhash.Sum64String(id); got != want {
			t.Errorf("the hash of %q is %x, that of the library %x", id, got, want)
		}
	}
}

// TestSeedReachesAllBits shows that a seed is not just added to a finished hash: how two ids differ depends
// on it, in every bit.
func TestSeedReachesAllBits(t *testing.T) {
	var varied uint64
	first := New(1).Sum("a") ^ New(1).Sum("b")
	for seed := uint64(2); seed < 66; seed++ {
		varied |= first ^ (New(seed).Sum("a") ^ New(seed).Sum("b"))
	}
	if n := bits.OnesCount64(varied); n != 64 {
		t.Errorf("the seed changes %d of 64 bits of the difference of two hashes", n)
	}
}

func TestHashesAreDistinct(t *testing.T) {
	const n = 100_000
	seen := make(map[uint64]string, n)
	h := New(42)
	for i := range n {
		id := fmt.Sprint("upload-", i)
		sum := h.Sum(id)
		if other, twice := seen[sum]; twice {
			t.Fatalf("%q and %q have the same hash", id, other)
		}
		seen[sum] = id
	}
}

func TestSumDoesNotAllocate(t *testing.T) {
	h, id := New(42), "upload-0123456789-0123456789-0123456789"
	if n := testing.AllocsPerRun(100, func() { h.Sum(id) }); n != 0 {
		t.Errorf("a hash takes %v allocations", n)
	}
}

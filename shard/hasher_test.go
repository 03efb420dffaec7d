package shard

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
)

func TestHasher_SumDependsOnSeedOnly(t *testing.T) {
	one, same, other := newHasher(seed(7)), newHasher(seed(7)), newHasher(seed(8))
	for _, id := range []string{"", "a", "upload-1", string(make([]byte, 255))} {
		if one.sum(id) != same.sum(id) {
			t.Errorf("two hashers of one seed disagree about %q", id)
		}
		if id != "" && one.sum(id) == other.sum(id) {
			t.Errorf("hashers of two seeds agree about %q", id)
		}
	}
}

// colliding lists pairs with the same hash under every seed of xxhash: the second word cancels the difference of the
// first.
var colliding = [][2]string{
	{"\x01\x01\x01\x01\x01\x01\x01\x0111111111", "!\xf4\xffh\x03L\x89!1111\xe0|\xbeG"},
	{"\x02\x02\x02\x02\x02\x02\x02\x02bbbbbbbb", "\"\xf5\x00j\x04M\x8a\"bbbb\xb3\x16\xd5K"},
	{"\x03\x03\x03\x03\x03\x03\x03\x03\x93\x93\x93\x93\x93\x93\x93\x93", "#\xf6\x01k\x05N\x8b#\x93\x93\x93\x93\xe4G\x06}"},
}

// TestHasher_CollisionsOfXxhashDiffer verifies that the pairs collide under plain xxhash and that their hashes
// differ with a hasher.
func TestHasher_CollisionsOfXxhashDiffer(t *testing.T) {
	for _, pair := range colliding {
		for s := range uint64(100) {
			d, e := xxhash.NewWithSeed(s), xxhash.NewWithSeed(s)
			_, _ = d.WriteString(pair[0])
			_, _ = e.WriteString(pair[1])
			if d.Sum64() != e.Sum64() {
				t.Fatalf("%x do not collide under seed %d", pair, s)
			}
			if h := newHasher(seed(s)); h.sum(pair[0]) == h.sum(pair[1]) {
				t.Errorf("%x collide", pair)
			}
		}
	}
}

// seed returns a seed that differs for different numbers.
func seed(n uint64) (s [32]byte) {
	binary.LittleEndian.PutUint64(s[:], n)
	return s
}

// TestHasher_SeedReachesAllBits shows that a seed is not just added to a finished hash: how two ids differ depends
// on it, in every bit.
func TestHasher_SeedReachesAllBits(t *testing.T) {
	var varied uint64
	first := newHasher(seed(1)).sum("a") ^ newHasher(seed(1)).sum("b")
	for n := uint64(2); n < 66; n++ {
		varied |= first ^ (newHasher(seed(n)).sum("a") ^ newHasher(seed(n)).sum("b"))
	}
	if n := bits.OnesCount64(varied); n != 64 {
		t.Errorf("the seed changes %d of 64 bits of the difference of two hashes", n)
	}
}

func TestHasher_SumsAreDistinct(t *testing.T) {
	const n = 100_000
	seen := make(map[uint64]string, n)
	h := newHasher(seed(42))
	for i := range n {
		id := fmt.Sprint("upload-", i)
		sum := h.sum(id)
		if other, twice := seen[sum]; twice {
			t.Fatalf("%q and %q have the same hash", id, other)
		}
		seen[sum] = id
	}
}

func TestHasher_SumAllocatesNothing(t *testing.T) {
	h, id := newHasher(seed(42)), "upload-0123456789-0123456789-0123456789"
	if n := testing.AllocsPerRun(100, func() { h.sum(id) }); n != 0 {
		t.Errorf("a hash takes %v allocations", n)
	}
}

// TestHasher_PartsDoNotCancel: ids of two equal parts, each as long as the pad, have different hashes.
func TestHasher_PartsDoNotCancel(t *testing.T) {
	h, seen := newHasher(seed(1)), make(map[uint64]bool)
	for i := range 100 {
		part := strings.Repeat(string(rune('0'+i)), padBytes)[:padBytes]
		seen[h.sum(part+part)] = true
	}
	if len(seen) != 100 {
		t.Errorf("100 ids have %d hashes", len(seen))
	}
}

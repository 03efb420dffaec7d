package shard

import (
	"strconv"
	"testing"

	"github.com/cespare/xxhash/v2"
)

const (
	placementShards = 64
	placementIDs    = 1024
)

// chosen returns ids that an attacker picked.
func chosen(pick func(id string) bool) []string {
	var ids []string
	for i := 0; len(ids) < placementIDs; i++ {
		if id := "upload-" + strconv.Itoa(i); pick(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// wantSpread fails if some shard has many more of the ids than its share.
func wantSpread(t *testing.T, r *registry, ids []string) {
	t.Helper()
	const share = placementIDs / placementShards
	perShard := map[*Shard[int, int]]int{}
	for _, id := range ids {
		perShard[r.shard(r.key(id).hash)]++
	}
	for _, n := range perShard {
		if n > 4*share {
			t.Errorf("one shard has %d of %d ids, its share is %d", n, len(ids), share)
		}
	}
	if len(perShard) < placementShards*3/4 {
		t.Errorf("the ids use %d of %d shards", len(perShard), placementShards)
	}
}

func TestHash_SpreadsOrdinaryIDs(t *testing.T) {
	wantSpread(t, newRegistry(placementShards), chosen(func(string) bool { return true }))
}

// TestHash_ChosenIDsCannotBeSteered tries an attack that would succeed if the seed were mixed into the finished
// hash, or if there were no seed.
func TestHash_ChosenIDsCannotBeSteered(t *testing.T) {
	other := newRegistry(placementShards)
	first := other.shard(other.key("upload-0").hash)
	for name, pick := range map[string]func(id string) bool{
		"equal low bits of the plain hash":  func(id string) bool { return xxhash.Sum64String(id)%placementShards == 5 },
		"equal high bits of the plain hash": func(id string) bool { return xxhash.Sum64String(id)>>58 == 5 },
		"one shard of another process":      func(id string) bool { return other.shard(other.key(id).hash) == first },
	} {
		t.Run(name, func(t *testing.T) { wantSpread(t, newRegistry(placementShards), chosen(pick)) })
	}
}

// The shard is chosen by the top bits, so that the maps inside it, which go by the low ones, still spread.
func TestHash_IDsOfShardDifferInLowBits(t *testing.T) {
	r := newRegistry(placementShards)
	first := r.shard(r.key("upload-0").hash)
	low := map[uint64]bool{}
	for _, id := range chosen(func(id string) bool { return r.shard(r.key(id).hash) == first }) {
		low[r.key(id).hash%placementShards] = true
	}
	if len(low) < placementShards*3/4 {
		t.Errorf("the ids of one shard have only %d of %d values in their low bits", len(low), placementShards)
	}
}

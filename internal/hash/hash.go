// Package hash places ids that clients choose.
package hash

import "github.com/cespare/xxhash/v2"

// Hasher hashes ids under a seed. It is a value; any number of goroutines may use it.
//
// xxhash as such is the same in every process, so whoever chooses ids could choose such that share a shard.
// The seed therefore goes in before the first byte of the id: mixing it into the finished hash would leave
// ids with equal hashes together whatever the seed is.
type Hasher struct{ seed uint64 }

// New returns a hasher. The seed should be random, and the same for all hashes that are compared.
func New(seed uint64) Hasher { return Hasher{seed} }

// Sum returns the hash of an id. All of its bits are of use.
func (h Hasher) Sum(id string) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(h.seed)
	_, _ = d.WriteString(id) // never fails
	return d.Sum64()
}

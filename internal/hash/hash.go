// Package hash places ids that clients choose.
package hash

import (
	"crypto/subtle"
	"math/rand/v2"

	"github.com/cespare/xxhash/v2"
)

// padBytes is how many bytes of an id are hidden: more than the protocol's longest id has.
const padBytes = 256

// Hasher hashes ids under a secret. Any number of goroutines may use it.
//
// xxhash as such is the same in every process, so whoever chooses ids could choose such that share a shard. Its
// own seed is no remedy: there are ids that collide under every seed, because the last steps of the hash
// cancel chosen differences whatever came before. So the id itself is hidden behind a secret pad first. What
// differences its bytes make in the hash then depends on bytes that nobody outside knows.
type Hasher struct{ pad [padBytes]byte }

// New returns a hasher. The seed should be random, and the same for all hashes that are compared.
func New(seed [32]byte) *Hasher {
	h := new(Hasher)
	_, _ = rand.NewChaCha8(seed).Read(h.pad[:]) // never fails
	return h
}

// Sum returns the hash of an id. All of its bits are of use.
func (h *Hasher) Sum(id string) uint64 {
	var room [padBytes]byte
	n := copy(room[:], id)
	subtle.XORBytes(room[:n], room[:n], h.pad[:n])
	sum := xxhash.Sum64(room[:n])
	if n < len(id) {
		sum ^= h.Sum(id[n:]) // no id of the protocol comes here
	}
	return sum
}

package shard

import (
	"crypto/subtle"
	"math/rand/v2"

	"github.com/cespare/xxhash/v2"
)

// padBytes is the number of id bytes that are XORed with the pad: more than the longest id of the protocol.
const padBytes = 256

// hasher hashes client-chosen ids with a secret. It is safe for concurrent use.
//
// xxhash alone is identical in every process, so a client could choose ids that all map to one shard. Its seed does not
// prevent that: some ids collide under every seed, because the last steps of the hash cancel chosen differences. hasher
// therefore XORs the id with a secret pad first, so that the difference between two hashes depends on secret bytes.
type hasher struct{ pad [padBytes]byte }

// newHasher returns a hasher. The seed should be random, and the same for all hashes that are compared.
func newHasher(seed [32]byte) *hasher {
	h := new(hasher)
	_, _ = rand.NewChaCha8(seed).Read(h.pad[:]) // never fails
	return h
}

// sum returns the hash of an id. All of its bits are well distributed.
func (h *hasher) sum(id string) uint64 {
	var room [padBytes]byte
	n := copy(room[:], id)
	subtle.XORBytes(room[:n], room[:n], h.pad[:n])
	hash := xxhash.Sum64(room[:n])
	if n < len(id) {
		// The id is longer than any of the protocol. The factor keeps two equal parts from cancelling each other.
		const factor = 0x9E3779B185EBCA87
		hash = hash*factor + h.sum(id[n:])
	}
	return hash
}

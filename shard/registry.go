package shard

import (
	"crypto/rand"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/puzpuzpuz/xsync/v3"
)

// Config configures a Registry.
type Config[C comparable, S any] struct {
	// Shards is the number of shards, rounded up to a power of two, at most MaxShards. 0: four per GOMAXPROCS, so that
	// two cores seldom contend for the same shard.
	Shards int
	// Idle reports whether an upload's state can be discarded. An upload without subscribers is removed as soon as its
	// state is idle. Idle is called with the upload's lock held. nil: every state is idle.
	Idle func(*S) bool
	// Flush is called with the upload's lock held before its receivers change and before a callback of a subscription,
	// so that the caller may defer messages: each receiver gets the ones that were published while it was a receiver.
	// nil: no call.
	Flush func(*Upload[C, S])
	// Claim is called for each change of a connection's own claim on an upload, in the order of the changes, with the
	// locks of the user and the upload held. follows reports whether the user follows the upload apart from that claim.
	// nil: no call.
	Claim func(c C, up *Upload[C, S], change Change, follows bool)
	// Left is called for each connection that receives no further message of an upload, because its user has ceased to
	// follow it or because it was removed itself, with the locks of the user and the upload held. nil: no call.
	Left func(c C, up *Upload[C, S])
}

// Change is a change of a connection's claim.
type Change uint8

const (
	// Claimed means that SubscribeConn made the claim.
	Claimed Change = iota
	// Unclaimed means that UnsubscribeConn ended the claim.
	Unclaimed
	// Revoked means that UnsubscribeUser ended the claim.
	Revoked
	// Ended means that the connection was removed.
	Ended
)

// MaxShards keeps the registry's fixed cost within reason: each shard is a few cache lines and two maps.
const MaxShards = 1 << 16

// Registry stores users with connections of type C, and uploads with a state of type S that belongs to the caller. It
// is safe for concurrent use; a call blocks only on other calls that concern the same user or upload. The zero value of
// C stands for no connection and must not be registered.
//
// Callbacks run with the lock of a user or an upload held: they must not block and must not call the registry.
type Registry[C comparable, S any] struct {
	shards []Shard[C, S]
	hasher *hasher
	// shift reduces a hash to its top bits, which are the index of the shard.
	shift uint
	idle  func(*S) bool
	flush func(*Upload[C, S])
	claim func(C, *Upload[C, S], Change, bool)
	left  func(C, *Upload[C, S])
	// pending maps users without a connection to the time of their last subscription, on the caller's clock.
	pending *xsync.MapOf[*user[C, S], int64]
	// waiting counts pending, including those about to be added, so that a bound on it is never exceeded.
	waiting atomic.Int64
	// collidingUsers and collidingUploads belong to the shards' tables.
	collidingUsers   *collisions[*user[C, S]]
	collidingUploads *collisions[*Upload[C, S]]
	// ended pools ended subscriptions for reuse.
	ended sync.Pool
}

// cacheLine is the number of bytes that current processors prefetch at once: two lines of 64 bytes.
const cacheLine = 128

// Shard is one stripe of the registry. Its counters occupy separate cache lines, so that updating them does not slow
// down neighbouring shards or lookups in the same shard.
type Shard[C comparable, S any] struct {
	users         table[*user[C, S]]
	uploads       table[*Upload[C, S]]
	_             [cacheLine - 4*8]byte
	connections   atomic.Int64
	subscriptions atomic.Int64
	_             [cacheLine - 2*8]byte
}

// New returns an empty registry.
func New[C comparable, S any](cfg Config[C, S]) *Registry[C, S] {
	n, bits := numberOfShards(cfg.Shards)
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	r := &Registry[C, S]{
		shards:  make([]Shard[C, S], n),
		hasher:  newHasher(seed),
		shift:   64 - bits,
		idle:    cfg.Idle,
		flush:   cfg.Flush,
		claim:   cfg.Claim,
		left:    cfg.Left,
		pending: xsync.NewMapOf[*user[C, S], int64](),

		collidingUsers:   newCollisions[*user[C, S]](),
		collidingUploads: newCollisions[*Upload[C, S]](),
	}
	if r.idle == nil {
		r.idle = func(*S) bool { return true }
	}
	if r.flush == nil {
		r.flush = func(*Upload[C, S]) {}
	}
	if r.claim == nil {
		r.claim = func(C, *Upload[C, S], Change, bool) {}
	}
	if r.left == nil {
		r.left = func(C, *Upload[C, S]) {}
	}
	for i := range r.shards {
		r.shards[i].users = newTable(r.collidingUsers)
		r.shards[i].uploads = newTable(r.collidingUploads)
	}
	return r
}

// numberOfShards returns the number of shards for Config.Shards, and its logarithm.
func numberOfShards(want int) (n int, bits uint) {
	if want <= 0 {
		want = 4 * runtime.GOMAXPROCS(0)
	}
	for n = 1; n < min(want, MaxShards); n *= 2 {
		bits++
	}
	return n, bits
}

func (r *Registry[C, S]) key(id string) key { return key{r.hasher.sum(id), id} }

func (r *Registry[C, S]) shard(hash uint64) *Shard[C, S] { return &r.shards[hash>>r.shift] }

// Counts are the sizes of a registry. During concurrent changes, each count is correct for some moment, but not all for
// the same moment.
type Counts struct {
	// Connections and Users that have at least one connection or subscription.
	Connections, Users int
	// Uploads that have a subscriber or a state worth keeping.
	Uploads int
	// Subscriptions are pairs of a user and an upload.
	Subscriptions int
	// Pending are the users that have subscriptions and no connection.
	Pending int
}

// Counts returns the registry's sizes.
func (r *Registry[C, S]) Counts() Counts {
	c := Counts{
		Pending: r.pending.Size(),
		Users:   int(r.collidingUsers.count.Load()),
		Uploads: int(r.collidingUploads.count.Load()),
	}
	for i := range r.shards {
		s := r.shards[i].counts()
		c.Connections += s.Connections
		c.Subscriptions += s.Subscriptions
		c.Users += s.Users
		c.Uploads += s.Uploads
	}
	return c
}

// ShardCounts returns the sizes of each shard. They lack Pending, and the few ids whose hashes collide.
func (r *Registry[C, S]) ShardCounts() []Counts {
	counts := make([]Counts, len(r.shards))
	for i := range r.shards {
		counts[i] = r.shards[i].counts()
	}
	return counts
}

func (s *Shard[C, S]) counts() Counts {
	return Counts{
		Connections:   int(s.connections.Load()),
		Subscriptions: int(s.subscriptions.Load()),
		Users:         s.users.byHash.Size(),
		Uploads:       s.uploads.byHash.Size(),
	}
}

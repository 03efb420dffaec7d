package shard

import (
	"crypto/rand"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/puzpuzpuz/xsync/v3"

	"github.com/shoal-go/shoal/internal/hash"
)

// Config configures a Registry.
type Config[C comparable, S any] struct {
	// Shards is the number of shards, rounded up to a power of two. 0: four for each of GOMAXPROCS, so that
	// two cores seldom want the same one.
	Shards int
	// Idle reports whether an upload's state holds nothing worth keeping. An upload without subscribers is
	// forgotten as soon as its state is idle. It is called with the upload's lock held. nil: always.
	Idle func(*S) bool
	// Settle does what was put off with Upload.PutOff. It is called with the upload's lock held, before anybody
	// else meets the upload, and must not call the registry. It is only needed where PutOff is called.
	Settle func(*Upload[C, S])
}

// Registry holds users with connections of type C, and uploads with a state of type S that belongs to the
// caller. All methods may be called from any number of goroutines; they block only on other calls about the
// same user or upload.
//
// Callbacks run with the lock of a user or an upload held: they must not block and must not call the registry.
type Registry[C comparable, S any] struct {
	shards []Shard[C, S]
	hasher *hash.Hasher
	// shift leaves the hash's top bits, of which there are as many as a shard's index has.
	shift  uint
	idle   func(*S) bool
	settle func(*Upload[C, S])
	// pending are the users that subscribed and have no connection yet, and since when, by the caller's clock.
	pending *xsync.MapOf[*user[C, S], int64]
	// waiting counts pending, including those about to be added, so that a bound on it is never exceeded.
	waiting atomic.Int64
	// strayUsers and strayUploads belong to the shards' tables.
	strayUsers   *strays[*user[C, S]]
	strayUploads *strays[*Upload[C, S]]
	// ended holds subscriptions that have ended, to be used again.
	ended sync.Pool
}

// cacheLine is what processors of today fetch at once: two lines of 64 bytes.
const cacheLine = 128

// Shard is one stripe of the registry. Its counters have cache lines of their own, so that counting in a shard
// slows down neither its neighbours nor who looks for something in it.
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
	want := cfg.Shards
	if want <= 0 {
		want = 4 * runtime.GOMAXPROCS(0)
	}
	n, bits := 1, uint(0)
	for n < want {
		n, bits = n*2, bits+1
	}
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	r := &Registry[C, S]{
		shards:  make([]Shard[C, S], n),
		hasher:  hash.New(seed),
		shift:   64 - bits,
		idle:    cfg.Idle,
		settle:  cfg.Settle,
		pending: xsync.NewMapOf[*user[C, S], int64](),

		strayUsers:   newStrays[*user[C, S]](),
		strayUploads: newStrays[*Upload[C, S]](),
	}
	if r.idle == nil {
		r.idle = func(*S) bool { return true }
	}
	for i := range r.shards {
		r.shards[i].users = newTable(r.strayUsers)
		r.shards[i].uploads = newTable(r.strayUploads)
	}
	return r
}

// Shards returns the number of shards.
func (r *Registry[C, S]) Shards() int { return len(r.shards) }

func (r *Registry[C, S]) key(id string) key { return key{r.hasher.Sum(id), id} }

func (r *Registry[C, S]) shard(hash uint64) *Shard[C, S] { return &r.shards[hash>>r.shift] }

// Counts are the sizes of a registry. Taken while others change it, each is right for some moment, not all
// for the same one.
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
		Users:   int(r.strayUsers.count.Load()),
		Uploads: int(r.strayUploads.count.Load()),
	}
	for i := range r.shards {
		s := &r.shards[i]
		c.Connections += int(s.connections.Load())
		c.Subscriptions += int(s.subscriptions.Load())
		c.Users += s.users.byHash.Size()
		c.Uploads += s.uploads.byHash.Size()
	}
	return c
}

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
	// pending are the users that subscribed and have no connection yet.
	pending *xsync.MapOf[key, *user[C, S]]
	// waiting counts pending, including those about to be added, so that a bound on it is never exceeded.
	waiting atomic.Int64
	// ended holds subscriptions that have ended, to be used again.
	ended sync.Pool
}

// cacheLine is what processors of today fetch at once: two lines of 64 bytes.
const cacheLine = 128

// Shard is one stripe of the registry. It fills whole cache lines, so that counting in one shard does not
// slow down its neighbours.
type Shard[C comparable, S any] struct {
	users         *xsync.MapOf[key, *user[C, S]]
	uploads       *xsync.MapOf[key, *Upload[C, S]]
	connections   atomic.Int64
	subscriptions atomic.Int64
	_             [cacheLine - 4*8]byte
}

// key carries an id's hash, so that it is computed once for the choice of the shard and for its map.
type key struct {
	hash uint64
	id   string
}

func hashKey(k key, _ uint64) uint64 { return k.hash }

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
		pending: xsync.NewMapOfWithHasher[key, *user[C, S]](hashKey),
	}
	if r.idle == nil {
		r.idle = func(*S) bool { return true }
	}
	for i := range r.shards {
		r.shards[i].users = xsync.NewMapOfWithHasher[key, *user[C, S]](hashKey)
		r.shards[i].uploads = xsync.NewMapOfWithHasher[key, *Upload[C, S]](hashKey)
	}
	return r
}

// Shards returns the number of shards.
func (r *Registry[C, S]) Shards() int { return len(r.shards) }

func (r *Registry[C, S]) key(id string) key { return key{r.hasher.Sum(id), id} }

func (r *Registry[C, S]) shard(k key) *Shard[C, S] { return &r.shards[k.hash>>r.shift] }

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
	c := Counts{Pending: r.pending.Size()}
	for i := range r.shards {
		s := &r.shards[i]
		c.Connections += int(s.connections.Load())
		c.Subscriptions += int(s.subscriptions.Load())
		c.Users += s.users.Size()
		c.Uploads += s.uploads.Size()
	}
	return c
}

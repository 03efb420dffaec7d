package shard

import (
	"sync/atomic"

	"github.com/puzpuzpuz/xsync/v3"
)

// key is an id with its hash, which is computed once for both the choice of the shard and its map.
type key struct {
	hash uint64
	id   string
}

// named is an element of a table: a pointer to an object with an id.
type named interface {
	comparable
	name() string
}

// table finds objects by their ids. It is safe for concurrent use.
//
// Its map is keyed by the hash alone, because the object stores its id anyway: keeping the id in the map entry as well
// would double the memory. Hash collisions are extremely unlikely but must not confuse two ids: the second object with
// the same hash is stored among the collisions.
type table[V named] struct {
	byHash     *xsync.MapOf[uint64, V]
	collisions *collisions[V]
}

// collisions stores, for all tables of a kind, the objects whose hash collides with another object's. It changes only
// within a computation of the table's map for that hash, so that no id is ever in both.
type collisions[V named] struct {
	byID *xsync.MapOf[string, V]
	// count is almost always 0; checking it first avoids the byID lookup.
	count atomic.Int64
}

func newCollisions[V named]() *collisions[V] {
	return &collisions[V]{byID: xsync.NewMapOf[string, V]()}
}

func newTable[V named](s *collisions[V]) table[V] {
	identity := func(hash, _ uint64) uint64 { return hash }
	return table[V]{xsync.NewMapOfWithHasher[uint64, V](identity), s}
}

func (s *collisions[V]) load(id string) (v V, ok bool) {
	if s.count.Load() == 0 {
		return v, false
	}
	return s.byID.Load(id)
}

// load returns the object with the id.
func (t table[V]) load(k key) (v V, ok bool) {
	if v, ok = t.byHash.Load(k.hash); ok && v.name() == k.id {
		return v, true
	}
	return t.collisions.load(k.id)
}

// loadOrAdd returns the object with the id and creates it if necessary.
func (t table[V]) loadOrAdd(k key, made func() V) (v V) {
	t.byHash.Compute(k.hash, func(there V, taken bool) (keep V, free bool) {
		collided, ok := t.collisions.load(k.id)
		switch {
		case taken && there.name() == k.id:
			v = there
		case ok:
			v = collided
		case taken:
			v = made()
			t.collisions.byID.Store(k.id, v)
			t.collisions.count.Add(1)
		default:
			v = made()
			return v, false
		}
		return there, !taken
	})
	return v
}

// remove deletes the object, if it is in the table.
func (t table[V]) remove(k key, v V) {
	t.byHash.Compute(k.hash, func(there V, taken bool) (keep V, free bool) {
		if taken && there == v {
			return there, true
		}
		t.collisions.byID.Delete(k.id)
		t.collisions.count.Add(-1)
		return there, !taken
	})
}

// each calls fn for every object. Objects that are added or removed concurrently may be omitted.
func (t table[V]) each(fn func(V)) {
	t.byHash.Range(func(_ uint64, v V) bool {
		fn(v)
		return true
	})
}

func (s *collisions[V]) each(fn func(V)) {
	s.byID.Range(func(_ string, v V) bool {
		fn(v)
		return true
	})
}

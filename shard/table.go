package shard

import (
	"sync/atomic"

	"github.com/puzpuzpuz/xsync/v3"
)

// key is an id with its hash, which is computed once for the choice of the shard and for its map.
type key struct {
	hash uint64
	id   string
}

// named is what a table holds: pointers to what has an id.
type named interface {
	comparable
	name() string
}

// table finds things by their ids. All methods may be called from any number of goroutines.
//
// Its map goes by the hash alone, since what it finds knows its id anyway: to keep the id in the map's entries as
// well would take twice their memory. Ids with the same hash are next to impossible, and still must not be
// mistaken for each other: whoever comes second is kept among the strays.
type table[V named] struct {
	byHash *xsync.MapOf[uint64, V]
	strays *strays[V]
}

// strays holds, for all tables of a kind, what its hash does not find. What is done to it is done in a computation
// of the table's map for that hash, so that no id is ever in both.
type strays[V named] struct {
	byID *xsync.MapOf[string, V]
	// count is 0 for as good as ever, which spares looking.
	count atomic.Int64
}

func newStrays[V named]() *strays[V] { return &strays[V]{byID: xsync.NewMapOf[string, V]()} }

func newTable[V named](s *strays[V]) table[V] {
	identity := func(hash, _ uint64) uint64 { return hash }
	return table[V]{xsync.NewMapOfWithHasher[uint64, V](identity), s}
}

func (s *strays[V]) load(id string) (v V, ok bool) {
	if s.count.Load() == 0 {
		return v, false
	}
	return s.byID.Load(id)
}

// load returns what has the id.
func (t table[V]) load(k key) (v V, ok bool) {
	if v, ok = t.byHash.Load(k.hash); ok && v.name() == k.id {
		return v, true
	}
	return t.strays.load(k.id)
}

// loadOrAdd returns what has the id, which is made if there is nothing.
func (t table[V]) loadOrAdd(k key, made func() V) (v V) {
	t.byHash.Compute(k.hash, func(there V, taken bool) (keep V, free bool) {
		stray, ok := t.strays.load(k.id)
		switch {
		case taken && there.name() == k.id:
			v = there
		case ok:
			v = stray
		case taken:
			v = made()
			t.strays.byID.Store(k.id, v)
			t.strays.count.Add(1)
		default:
			v = made()
			return v, false
		}
		return there, !taken
	})
	return v
}

// remove takes out what is there.
func (t table[V]) remove(k key, v V) {
	t.byHash.Compute(k.hash, func(there V, taken bool) (keep V, free bool) {
		if taken && there == v {
			return there, true
		}
		t.strays.byID.Delete(k.id)
		t.strays.count.Add(-1)
		return there, !taken
	})
}

// each calls fn for everything. What comes or goes meanwhile may be left out.
func (t table[V]) each(fn func(V)) {
	t.byHash.Range(func(_ uint64, v V) bool {
		fn(v)
		return true
	})
}

func (s *strays[V]) each(fn func(V)) {
	s.byID.Range(func(_ string, v V) bool {
		fn(v)
		return true
	})
}

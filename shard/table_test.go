package shard

import (
	"slices"
	"strconv"
	"sync"
	"testing"
)

// thing is the element type of the tables under test.
type thing struct{ id string }

func (t *thing) name() string { return t.id }

// things returns a table and functions to find, add and remove objects that all have the same hash.
func things() (t table[*thing], load, add func(string) *thing, remove func(*thing)) {
	t = newTable(newCollisions[*thing]())
	clash := func(id string) key { return key{42, id} }
	load = func(id string) *thing {
		v, ok := t.load(clash(id))
		if ok != (v != nil) {
			panic("load does not say whether there is something")
		}
		return v
	}
	add = func(id string) *thing { return t.loadOrAdd(clash(id), func() *thing { return &thing{id} }) }
	remove = func(v *thing) { t.remove(clash(v.id), v) }
	return t, load, add, remove
}

func TestTable_SameHashIsKeptApart(t *testing.T) {
	table, load, add, remove := things()
	ids := []string{"first", "second", "third"}
	for _, leave := range ids { // the other objects stay, in any order of removal
		made := map[string]*thing{}
		for _, id := range ids {
			if load(id) != nil {
				t.Errorf("%s is there before it was added", id)
			}
			made[id] = add(id)
		}
		remove(made[leave])
		for _, id := range ids {
			want := made[id]
			if id == leave {
				want = nil
			}
			if got := load(id); got != want {
				t.Errorf("without %s, %s is %v, want %v", leave, id, got, want)
			}
			if want != nil && add(id) != want {
				t.Errorf("without %s, %s was made again", leave, id)
			}
		}
		var seen []string
		see := func(v *thing) { seen = append(seen, v.id) }
		table.each(see)
		table.collisions.each(see)
		slices.Sort(seen)
		want := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == leave })
		if slices.Sort(want); !slices.Equal(seen, want) {
			t.Errorf("without %s, there are %q", leave, seen)
		}
		for _, id := range want {
			remove(made[id])
		}
		if n := table.byHash.Size() + table.collisions.byID.Size() + int(table.collisions.count.Load()); n != 0 {
			t.Errorf("%d are left", n)
		}
	}
}

// TestTable_SameHashIsCreatedOnce adds and removes colliding ids concurrently. Only one goroutine adds and removes
// each id, so it must always find its own object.
func TestTable_SameHashIsCreatedOnce(t *testing.T) {
	_, load, add, remove := things()
	var work sync.WaitGroup
	for i := range 4 {
		id := "id " + strconv.Itoa(i)
		work.Go(func() {
			for range 2000 {
				v := add(id)
				if load(id) != v || add(id) != v {
					t.Errorf("%s is there twice", id)
				}
				remove(v)
				if load(id) != nil {
					t.Errorf("%s is still there", id)
				}
			}
		})
	}
	work.Wait()
}

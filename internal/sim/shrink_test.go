package sim

import (
	"reflect"
	"slices"
	"testing"
)

// A history is a function of its seed.
func TestDraw_IsReproducible(t *testing.T) {
	for seed := range uint64(20) {
		if first, second := Draw(seed), Draw(seed); !reflect.DeepEqual(first, second) {
			t.Errorf("seed %d has two histories:\n%v\n%v", seed, first, second)
		}
	}
}

// Shrink finds the operations that a violation needs, also if it does not show every time.
func TestShrink_KeepsTheCauseOnly(t *testing.T) {
	h := Draw(7)
	need := []int{h.kept[3], h.kept[11], h.kept[len(h.kept)-1]}
	calls := 0
	h = Shrink(h, func(candidate History) bool {
		calls++
		for _, index := range need {
			if !slices.Contains(candidate.Kept(), index) {
				return false
			}
		}
		return calls%2 == 0
	})
	if !slices.Equal(h.Kept(), need) {
		t.Errorf("operations %v are left, want %v", h.Kept(), need)
	}
	if again := Draw(7).Only(need...); again.String() != h.String() {
		t.Errorf("the indexes stand for another history:\n%v\n%v", again, h)
	}
}

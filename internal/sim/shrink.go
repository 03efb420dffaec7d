package sim

import "slices"

// attempts is how often a history is executed before it counts as one that keeps all promises: the interleaving of
// goroutines is not part of a history.
const attempts = 3

// Shrink returns the shortest history that it can find by leaving out operations of h while violates still reports a
// violation, which it calls for each candidate up to three times.
func Shrink(h History, violates func(History) bool) History {
	again := func(candidate History) bool {
		for range attempts {
			if violates(candidate) {
				return true
			}
		}
		return false
	}
	for size := len(h.Ops); size > 0; size /= 2 {
		for from := 0; from < len(h.Ops); {
			if candidate := h.without(from, min(from+size, len(h.Ops))); again(candidate) {
				h = candidate
			} else {
				from += size
			}
		}
	}
	return h
}

// without returns the history without some operations.
func (h History) without(from, to int) History {
	h.Ops = slices.Delete(slices.Clone(h.Ops), from, to)
	h.kept = slices.Delete(slices.Clone(h.kept), from, to)
	return h
}

// Only returns the history with the operations at these indexes, as String shows them.
func (h History) Only(indexes ...int) History {
	rest := h
	rest.Ops, rest.kept = nil, nil
	for i, index := range h.kept {
		if slices.Contains(indexes, index) {
			rest.Ops, rest.kept = append(rest.Ops, h.Ops[i]), append(rest.kept, index)
		}
	}
	return rest
}

// Kept returns the indexes of the operations in the history that was drawn.
func (h History) Kept() []int { return h.kept }

package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// restart ends all connections of the hub and brings them back after a time. Each channel loses its newest drop
// messages, all of them if drop is negative, and gets a new epoch, in which the rest may be numbered from 1, unless it
// keeps its epoch.
func (h *hub) restart(drop int, renumber, keep bool, outage time.Duration) {
	h.mu.Lock()
	links := slices.Clone(h.links)
	h.mu.Unlock()
	for _, l := range links {
		l.cut()
	}
	h.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(h.channels)) { // the epochs are numbered
		h.reload(name, h.channels[name], drop, renumber, keep)
	}
	h.mu.Unlock()
	time.AfterFunc(outage, func() {
		for _, l := range links {
			l.mend()
		}
	})
}

// reload gives a channel the data that it has after a restart; the hub's lock is held.
func (h *hub) reload(name string, c *channel, drop int, renumber, keep bool) {
	kept := c.kept.Messages
	if drop < 0 {
		kept = nil
	} else {
		kept = kept[:max(0, len(kept)-drop)]
	}
	next := broker.Snapshot{Position: broker.Position{Epoch: h.epoch()}, Floor: c.kept.Floor}
	renumber = renumber && !h.bare
	if renumber || len(kept) == 0 {
		next.Floor = 0
	}
	if keep {
		next.Epoch = c.kept.Epoch
	}
	next.Offset = next.Floor
	upload, aboutUpload := uploadOf(name)
	rest := map[int]bool{}
	for _, m := range kept {
		if next.Offset++; !renumber {
			next.Offset = m.Offset
		}
		next.Messages = append(next.Messages, broker.Stored{Offset: next.Offset, Payload: m.Payload, At: m.At})
		if aboutUpload {
			rest[bodyOf(m.Payload)] = true
			if !keep {
				h.account.renumber(upload, bodyOf(m.Payload), next.Position)
			}
		}
	}
	if aboutUpload {
		h.account.unspot(upload, next.Position)
		h.account.lose(upload, rest)
	}
	c.kept, c.marker = next, 0
}

// healthy reports whether no link has a fault.
func (h *hub) healthy() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.links {
		if l.down > 0 || l.loses > 0 || l.late > 0 || l.mute {
			return false
		}
		for _, reasons := range l.refuses {
			if reasons > 0 {
				return false
			}
		}
	}
	return true
}

// reuses reports whether the offset of a position of an upload will be used again.
func (h *hub) reuses(upload int, at broker.Position) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.channels["upload:"+uploadID(upload)]
	return c != nil && c.kept.Epoch == at.Epoch && c.kept.Offset < at.Offset
}

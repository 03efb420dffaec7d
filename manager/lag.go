package manager

import (
	"context"
	"time"
)

// The maximum wait of a client for a node that is behind it, and the pause before the first check. Each further pause
// is twice as long: a client that claims to be far ahead costs ten checks, not hundreds.
const (
	lagPatience = time.Second
	lagPause    = time.Millisecond
)

// overtake blocks while this node is behind the positions that clients reached on another node: usually for some
// milliseconds, until the broker delivers the messages here too, and at most for a second. Without the wait, these
// clients would be answered that they have a gap, and would receive messages again.
func (m *Manager) overtake(ctx context.Context, since map[string]Position) {
	if m.cluster == nil {
		return
	}
	var patience <-chan time.Time
	pause := lagPause
	for uploadID, pos := range since {
		for m.lags(uploadID, pos) {
			if patience == nil {
				patience = time.After(lagPatience)
			}
			select {
			case <-time.After(pause):
				pause *= 2
			case <-patience:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// lags reports whether a position is ahead of this node's position of an upload, in the same epoch.
func (m *Manager) lags(uploadID string, pos Position) (behind bool) {
	m.registry.WithKnown(uploadID, func(u *upload) {
		log := u.State.log
		behind = log != nil && log.Epoch() == pos.Epoch && log.Offset() < pos.Offset
	})
	return behind
}

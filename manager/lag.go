package manager

import (
	"context"
	"time"
)

// How long a client waits for a node that lags behind it, and how long it is until the first look at whether it still
// does. Each further pause is twice as long: a client that claims to be far ahead costs ten looks, not hundreds.
const (
	lagPatience = time.Second
	lagPause    = time.Millisecond
)

// overtake blocks while this node lags behind what clients have already had of uploads, from a node that was further
// on: usually some milliseconds, until the broker brings that here too, and a second at most. Answered at once, they
// would be told that they had missed something, and get again what they have.
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

// lags reports whether a position is ahead of what this node has of an upload, in the same epoch.
func (m *Manager) lags(uploadID string, pos Position) (behind bool) {
	m.registry.WithKnown(uploadID, func(u *upload) {
		log := u.State.log
		behind = log != nil && log.Epoch() == pos.Epoch && log.Offset() < pos.Offset
	})
	return behind
}

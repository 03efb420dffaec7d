package shard

import "sync"

// lifetime is the lock of a user or an upload, which is dead once it was removed from its map.
type lifetime struct {
	mu   sync.Mutex
	dead bool
}

// lockAlive locks unless the user or upload is dead, and reports whether it holds the lock.
func (l *lifetime) lockAlive() bool {
	l.mu.Lock()
	if l.dead {
		l.mu.Unlock()
		return false
	}
	return true
}

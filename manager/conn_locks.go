package manager

import "sync"

// connLocks are locks by connection: concurrent calls of Resume for one connection answer one after the other, so that
// no answer with an older position follows one with a newer. No other lock is held while one is acquired, and no method
// of a connection but those that a resume calls, which only queue, is called under it. The zero value is ready for use.
type connLocks struct {
	mu   sync.Mutex // protects held; nothing blocks under it
	held map[Conn]*connLock
}

// connLock is the lock of one connection. users are the goroutines that hold it or wait for it.
type connLock struct {
	sync.Mutex
	users int
}

// acquire locks a connection.
func (l *connLocks) acquire(c Conn) (release func()) {
	l.mu.Lock()
	lock := l.held[c]
	if lock == nil {
		lock = new(connLock)
		if l.held == nil {
			l.held = make(map[Conn]*connLock)
		}
		l.held[c] = lock
	}
	lock.users++
	l.mu.Unlock()

	lock.Lock()
	return func() {
		lock.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if lock.users--; lock.users == 0 {
			delete(l.held, c)
		}
	}
}

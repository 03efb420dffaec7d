package brokertest

import (
	"sync"
	"time"
)

// board holds state that changes while a test waits for it. All methods may be called from any number of goroutines.
type board struct {
	mu     sync.Mutex    // protects turned, and the fields of the struct that the board is part of
	turned chan struct{} // closed and replaced whenever something has changed
}

func newBoard() board { return board{turned: make(chan struct{})} }

// change calls fn with the lock held, and wakes waiting goroutines.
func (b *board) change(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
	close(b.turned)
	b.turned = make(chan struct{})
}

// look calls fn with the lock held.
func (b *board) look(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
}

// await returns when the condition holds, which is called with the board's lock held.
func (s *trial) await(b *board, what string, condition func() bool) {
	s.Helper()
	if s.Failed() {
		s.FailNow()
	}
	late := time.NewTimer(s.Patience)
	defer late.Stop()
	for {
		b.mu.Lock()
		held, turned := condition(), b.turned
		b.mu.Unlock()
		if held {
			return
		}
		select {
		case <-turned:
		case <-late.C:
			s.Fatalf("after %v still waiting for %s", s.Patience, what)
		}
	}
}

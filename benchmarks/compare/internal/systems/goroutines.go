package systems

import (
	"net/http"
	"sync"
)

// goroutines counts the goroutines of a system: handlers and the goroutines that they start. Its methods may be called
// from any number of goroutines. Unlike a sync.WaitGroup it may grow from 0 while Close waits, since connections come at
// any time.
type goroutines struct {
	mu   sync.Mutex // protects the fields below
	n    int
	idle sync.Cond
}

func newGoroutines() *goroutines {
	c := &goroutines{}
	c.idle.L = &c.mu
	return c
}

// handler returns a handler whose calls are counted.
func (c *goroutines) handler(f http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.add(1)
		defer c.add(-1)
		f(w, r)
	})
}

// start starts a goroutine.
func (c *goroutines) start(f func()) {
	c.add(1)
	go func() {
		defer c.add(-1)
		f()
	}()
}

func (c *goroutines) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
	if c.n == 0 {
		c.idle.Broadcast()
	}
}

// Close blocks until all have ended.
func (c *goroutines) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.n > 0 {
		c.idle.Wait()
	}
	return nil
}

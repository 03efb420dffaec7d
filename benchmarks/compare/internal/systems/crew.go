package systems

import (
	"net/http"
	"sync"
)

// crew are the goroutines of a system: handlers and the goroutines that they start. Its methods may be called from
// any number of goroutines; unlike a sync.WaitGroup it may grow from nothing while it is waited for, as
// connections come whenever they like.
type crew struct {
	mu   sync.Mutex // protects the fields below
	n    int
	idle sync.Cond
}

func newCrew() *crew {
	c := &crew{}
	c.idle.L = &c.mu
	return c
}

// handler returns a handler whose calls belong to the crew.
func (c *crew) handler(f http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.add(1)
		defer c.add(-1)
		f(w, r)
	})
}

// start starts a goroutine.
func (c *crew) start(f func()) {
	c.add(1)
	go func() {
		defer c.add(-1)
		f()
	}()
}

func (c *crew) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
	if c.n == 0 {
		c.idle.Broadcast()
	}
}

// wait blocks until all have ended.
func (c *crew) wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.n > 0 {
		c.idle.Wait()
	}
}

package server

import (
	"context"
	"maps"
	"sync"
	"time"
)

// lifetime ends the contexts of a connection's hooks when the connection ends. The zero value is a connection that
// lives. Contexts are made on demand: an idle connection holds none.
type lifetime struct {
	mu    sync.Mutex // protects the fields below; nothing is called under it
	ended bool
	// ctx is the result of Client.Context, nil before the first call.
	ctx    context.Context //nolint:containedctx // the lifetime of the connection itself
	cancel context.CancelFunc
	// hook is the name of the hook that is running, "" while none is, and cancelCall ends its context.
	hook       string
	cancelCall context.CancelFunc
}

// Context returns a context that ends when the connection does: as soon as the client has closed its side or the
// server has closed the socket, also while a hook is running. On systems other than Linux, and where the listener's
// connections are neither TCP, Unix nor TLS over these, a client that leaves while a hook is running is noticed when
// it returns.
func (c *Client) Context() context.Context {
	l := &c.lifetime
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil {
		parent := context.Background()
		if c.server != nil {
			parent = c.server.ctx
		}
		l.ctx, l.cancel = context.WithCancel(parent)
		if l.ended || c.server == nil { // a zero Client has no connection
			l.cancel()
		}
	}
	return l.ctx
}

// call runs a hook with a context that ends with the connection, with the server and after a timeout. The calls of one
// connection come one after the other.
func (c *Client) call(name string, timeout time.Duration, hook func(context.Context)) {
	ctx, cancel := context.WithTimeout(c.server.ctx, timeout)
	defer cancel()
	c.runHook(name, cancel, func() { hook(ctx) })
}

// runHook notes the name of a hook while it runs, for the error of Server.Close, and cancel for the end of the
// connection.
func (c *Client) runHook(name string, cancel context.CancelFunc, hook func()) {
	l := &c.lifetime
	l.mu.Lock()
	l.hook, l.cancelCall = name, cancel
	ended := l.ended
	l.mu.Unlock()
	if ended && cancel != nil {
		cancel()
	}
	defer func() {
		c.heard.Store(int64(c.server.clock())) // see SilentFor
		l.mu.Lock()
		l.hook, l.cancelCall = "", nil
		l.mu.Unlock()
	}()
	hook()
}

// requestHooks counts the running hooks of requests that have no connection yet. The zero value is ready for use.
type requestHooks struct {
	mu      sync.Mutex // protects running
	running map[string]int
}

// run notes that a hook runs until done is called.
func (h *requestHooks) run(name string) (done func()) {
	h.add(name, 1)
	return func() { h.add(name, -1) }
}

func (h *requestHooks) add(name string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running == nil {
		h.running = make(map[string]int)
	}
	if h.running[name] += n; h.running[name] == 0 {
		delete(h.running, name)
	}
}

// counts returns the number of running hooks by name.
func (h *requestHooks) counts() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.running)
}

// runningHook returns the name of the hook that is running, or "".
func (c *Client) runningHook() string {
	c.lifetime.mu.Lock()
	name := c.lifetime.hook
	c.lifetime.mu.Unlock()
	if name == "" {
		name = c.claims.runningHook()
	}
	return name
}

// endContexts ends the contexts of the connection. Further calls have no effect.
func (c *Client) endContexts() {
	l := &c.lifetime
	l.mu.Lock()
	l.ended = true
	cancel, cancelCall := l.cancel, l.cancelCall
	l.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	if cancelCall != nil {
		cancelCall()
	}
}

// gone reports whether the connection has ended.
func (c *Client) gone() bool {
	l := &c.lifetime
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

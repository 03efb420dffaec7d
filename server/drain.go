package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// Leave makes the server unready, so that load balancers send new clients elsewhere, while everything still works.
// Drain should follow when they have noticed.
func (s *Server) Leave() { s.leaving.Store(true) }

// Drain refuses new connections from now on and closes the existing ones of this server with ServerReloading, evenly
// spread over a time. HTTP connections are no longer kept alive. It blocks until the WebSockets are gone, at most
// until ctx ends; the error says how many connections had to be cut off.
func (s *Server) Drain(ctx context.Context, spread time.Duration) error {
	if s.manager == nil {
		return errNotMade
	}
	s.mu.Lock()
	s.draining.Store(true)
	s.mu.Unlock()
	s.listeners.endKeepAlive()
	s.bodies.drain()
	var open []manager.UserConn
	s.keepalive.each(func(c *Client) {
		if c.authenticated() {
			open = append(open, manager.UserConn{UserID: c.UserID(), Conn: c})
		} else {
			c.Close(manager.ServerReloading)
		}
	})
	err := s.manager.DrainConns(ctx, spread, open)
	return errors.Join(err, s.drainUnregistered(ctx))
}

// drainUnregistered closes the connections that had not authenticated when Drain began, or were about to be
// registered, and waits for them.
func (s *Server) drainUnregistered(ctx context.Context) error {
	var left []*Client
	s.keepalive.each(func(c *Client) { left = append(left, c) })
	for _, c := range left {
		c.Close(manager.ServerReloading)
	}
	cutOff := 0
	for _, c := range left {
		select {
		case <-c.Done():
			continue
		case <-ctx.Done():
		}
		select {
		case <-c.Done():
		default:
			c.Abort()
			cutOff++
		}
	}
	if cutOff == 0 {
		return nil
	}
	return fmt.Errorf("server: %d connections were cut off: %w", cutOff, ctx.Err())
}

// Close drains without spreading, then ends the listeners of Serve and every goroutine of the server. It blocks until
// that is done, at most until ctx ends; the error then names the hooks that have not returned. Their goroutines end
// when they do. The manager stays open, and so do connections of other servers of the same manager. Close may be
// called again and concurrently: each call waits in the same way.
func (s *Server) Close(ctx context.Context) error {
	if s.manager == nil {
		return errNotMade
	}
	draining, cancel := withMargin(ctx)
	defer cancel()
	err := s.Drain(draining, 0)
	s.cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.keepalive.close()
		s.writers.Close() // aborts the connections that are left
		s.clients.Wait()
		s.readers.close()
		s.poller.close()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		select {
		case <-ended:
		default:
			err = errors.Join(err, s.running(ctx.Err()))
		}
	}
	s.listeners.close(ctx)
	if len(s.requestHooks.counts()) > 0 && err == nil {
		err = s.running(ctx.Err())
	}
	return err
}

// running returns an error that names the hooks that are running.
func (s *Server) running(cause error) error {
	count := s.requestHooks.counts()
	if count == nil {
		count = map[string]int{}
	}
	s.keepalive.each(func(c *Client) {
		if name := c.runningHook(); name != "" {
			count[name]++
		}
	})
	if len(count) == 0 {
		return fmt.Errorf("server: connections have not ended: %w", cause)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(count)) {
		errs = append(errs,
			fmt.Errorf("server: the hook %s has not returned for %d connections: %w", name, count[name], cause))
	}
	return errors.Join(errs...)
}

// withMargin returns a context that ends a tenth, at most half a second, before ctx does, which leaves time for the
// end of connections that are cut off.
func withMargin(ctx context.Context) (context.Context, context.CancelFunc) {
	const most = 500 * time.Millisecond
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, most)))
}

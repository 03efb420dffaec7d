package server

import (
	"context"
	"fmt"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// Drain refuses new connections from now on and closes the existing ones with ServerReloading, evenly spread
// over a time. It blocks until they are gone, at most until ctx ends; the error says how many connections
// had to be cut off.
func (s *Server) Drain(ctx context.Context, spread time.Duration) error {
	s.mu.Lock()
	s.draining.Store(true)
	s.mu.Unlock()
	s.keepalive.each(func(c *Client) {
		if !c.authenticated() {
			c.Close(manager.ServerReloading)
		}
	})
	err := s.manager.Drain(ctx, spread)
	if rest := s.drainRest(ctx); err == nil {
		err = rest
	}
	return err
}

// drainRest closes and awaits the connections that the manager does not know: those that had not authenticated,
// and those that were about to be registered when the manager looked.
func (s *Server) drainRest(ctx context.Context) error {
	var rest []*Client
	s.keepalive.each(func(c *Client) { rest = append(rest, c) })
	for _, c := range rest {
		c.Close(manager.ServerReloading)
	}
	cutOff := 0
	for _, c := range rest {
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

// Close drains without spreading, then ends the listeners of Serve and every goroutine of the server. It
// blocks until that is done, which ctx bounds. The manager stays open. Calling it again is allowed.
func (s *Server) Close(ctx context.Context) error {
	err := s.Drain(ctx, 0)
	s.cancel()
	s.keepalive.close()
	s.writers.Close() // cuts off what is left
	s.clients.Wait()
	s.readers.close()
	s.poller.close()
	s.listeners.close(ctx)
	return err
}

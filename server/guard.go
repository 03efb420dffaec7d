package server

import (
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"

	"github.com/shoal-go/shoal/manager"
)

// guard runs a handler of the client. A panic closes only this connection.
func (c *Client) guard(handle func()) {
	defer func() {
		if problem := recover(); problem != nil {
			c.panicked(problem)
		}
	}()
	handle()
}

// panicked closes a connection whose handling panicked.
func (c *Client) panicked(problem any) {
	c.server.panicked(problem, c.UserID())
	c.Close(manager.InternalError)
}

// panicked counts and logs a panic while a client was handled. Its value could hold bytes of the client, so it is
// logged only if it is the runtime's.
func (s *Server) panicked(problem any, userID string) {
	s.counters.panics.Add(1)
	attrs := []any{"user", userID, "type", fmt.Sprintf("%T", problem), "stack", string(debug.Stack())}
	if err, ok := problem.(runtime.Error); ok {
		attrs = append(attrs, "error", err.Error())
	}
	s.logs.panics.Log(s.opt.Logger, slog.LevelError, "panic while handling a client", attrs...)
}

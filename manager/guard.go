package manager

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// guard calls the methods of connections, which are the embedder's. A panic of one ends neither the process nor the
// delivery to another connection: it is counted, and logged at most once a second, with its stack and without its
// value, which may hold a payload.
type guard struct {
	logger *slog.Logger
	panics atomic.Uint64

	mu   sync.Mutex // protects last; the logger is called without it
	last time.Time
}

// send calls Conn.Send. A panic counts as Dropped.
func (g *guard) send(c Conn, f *Frame) (o Outcome) {
	o = Dropped
	defer func() {
		if problem := recover(); problem != nil {
			g.report("Send", c, problem)
		}
	}()
	return c.Send(f)
}

// sendDeferred calls Flusher.SendDeferred. A panic counts as Dropped.
func (g *guard) sendDeferred(c Flusher, f *Frame) (o Outcome, flush bool) {
	o = Dropped
	defer func() {
		if problem := recover(); problem != nil {
			g.report("SendDeferred", c, problem)
		}
	}()
	return c.SendDeferred(f)
}

// flush calls Flusher.Flush.
func (g *guard) flush(c Flusher) {
	defer func() {
		if problem := recover(); problem != nil {
			g.report("Flush", c, problem)
		}
	}()
	c.Flush()
}

// close calls Conn.Close.
func (g *guard) close(c Conn, reason CloseReason) {
	defer func() {
		if problem := recover(); problem != nil {
			g.report("Close", c, problem)
		}
	}()
	c.Close(reason)
}

// claimChanged calls ClaimObserver.ClaimChanged.
func (g *guard) claimChanged(o ClaimObserver, c Conn, change ClaimChange) {
	defer func() {
		if problem := recover(); problem != nil {
			g.report("ClaimChanged", c, problem)
		}
	}()
	o.ClaimChanged(change)
}

// call calls another method of a connection.
func (g *guard) call(method string, c Conn, work func()) {
	defer func() {
		if problem := recover(); problem != nil {
			g.report(method, c, problem)
		}
	}()
	work()
}

// report counts and logs a panic. It is called while the goroutine panics, so that the stack is the connection's.
func (g *guard) report(method string, c Conn, problem any) {
	g.panics.Add(1)
	g.mu.Lock()
	logged := time.Since(g.last) >= time.Second
	if logged {
		g.last = time.Now()
	}
	g.mu.Unlock()
	if logged {
		g.logger.Error("panic in a connection", "method", method, "connection", fmt.Sprintf("%T", c),
			"type", fmt.Sprintf("%T", problem), "stack", string(debug.Stack()))
	}
}

package manager

import (
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// guard calls the methods of connections and of the Tracer, which are the embedder's. A panic of one ends neither the
// process nor the delivery to another connection: it is counted, and logged at most once a second, with its stack and
// without its value, which may hold a payload. A connection whose panic may have lost a message is closed with
// InternalError, so that its client recovers.
type guard struct {
	logger *slog.Logger
	panics atomic.Uint64

	mu   sync.Mutex // protects the fields below; nothing else is called under it
	last time.Time
	// failed are the connections that are being closed because of a panic, or whose Close has panicked too and that are
	// still registered. They get no further message: their clients would take it for the next one.
	failed map[Conn]struct{}
	// failing is the number of them, for callers without mu.
	failing atomic.Int32
	// running waits for the goroutines that close them and log panics, whose number is workers, until ending is set.
	running sync.WaitGroup
	workers int
	ending  bool
}

// refuses reports whether a connection is being closed because of a panic.
func (g *guard) refuses(c Conn) bool {
	if g.failing.Load() == 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	_, found := g.failed[c]
	return found
}

// send calls Conn.Send. A panic counts as Dropped.
func (g *guard) send(c Conn, f *Frame) (o Outcome) {
	if g.refuses(c) {
		return Dropped
	}
	defer g.lost("Send", c)
	return c.Send(f)
}

// sendDeferred calls Flusher.SendDeferred. A panic counts as Dropped.
func (g *guard) sendDeferred(c Flusher, f *Frame) (o Outcome, flush bool) {
	if g.refuses(c) {
		return Dropped, false
	}
	defer g.lost("SendDeferred", c)
	return c.SendDeferred(f)
}

// flush calls Flusher.Flush.
func (g *guard) flush(c Flusher) {
	defer g.lost("Flush", c)
	c.Flush()
}

// close calls Conn.Close, and reports whether it returned without a panic.
func (g *guard) close(c Conn, reason CloseReason) (closed bool) {
	defer g.recovered("Close", c)
	c.Close(reason)
	return true
}

// claimChanged calls ClaimObserver.ClaimChanged.
func (g *guard) claimChanged(o ClaimObserver, c Conn, change ClaimChange) {
	defer g.recovered("ClaimChanged", c)
	o.ClaimChanged(change)
}

// hasToken reports whether a connection was authenticated by a token. A connection that panics may have been, and a
// revocation must not miss it.
func (g *guard) hasToken(c Conn, tokenID string) (has bool) {
	if tokenID == "" {
		return false
	}
	has = true
	switch t := c.(type) {
	case TokenSet:
		defer g.recovered("HasToken", c)
		has = t.HasToken(tokenID)
	case TokenHolder:
		defer g.recovered("TokenID", c)
		has = t.TokenID() == tokenID
	default:
		has = false
	}
	return has
}

// silentFor calls SilenceReporter.SilentFor. A connection that panics does not count as silent.
func (g *guard) silentFor(c SilenceReporter) (silent time.Duration) {
	defer g.recovered("SilentFor", c)
	return c.SilentFor()
}

// tracksPositions calls PositionTracker.TracksPositions. The client of a connection that panics does not count as one
// that knows positions, so that it misses nothing.
func (g *guard) tracksPositions(c PositionTracker) (tracks bool) {
	defer g.recovered("TracksPositions", c)
	return c.TracksPositions()
}

// done calls Terminator.Done. It returns nil for a connection without the method, and for one that panics, which counts
// as gone.
func (g *guard) done(c Conn) (done <-chan struct{}) {
	if t, ok := c.(Terminator); ok {
		defer g.recovered("Done", c)
		done = t.Done()
	}
	return done
}

// replay calls a method of a Replayer.
func (g *guard) replay(method string, r Replayer, work func()) {
	defer g.lost(method, r)
	work()
}

// call calls another method.
func (g *guard) call(method string, of any, work func()) {
	defer g.recovered(method, of)
	work()
}

// recovered ends a panic and reports it. It must be deferred itself: recover has no effect in a function that a
// deferred one calls.
func (g *guard) recovered(method string, of any) {
	if problem := recover(); problem != nil {
		g.report(method, of, problem)
	}
}

// lost ends a panic that may have lost a message of a connection: it reports it and closes the connection. Like
// recovered, it must be deferred itself.
func (g *guard) lost(method string, c Conn) {
	if problem := recover(); problem != nil {
		g.report(method, c, problem)
		g.fail(c)
	}
}

// fail closes a connection, on a goroutine of its own because the caller may hold locks.
func (g *guard) fail(c Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, found := g.failed[c]; found {
		return
	}
	if g.failed == nil {
		g.failed = make(map[Conn]struct{})
	}
	g.failed[c] = struct{}{}
	g.failing.Add(1)
	g.workLocked(func() {
		if g.close(c, InternalError) {
			g.forget(c)
		}
	})
}

// workLocked calls a function on a goroutine of its own. The caller holds mu.
func (g *guard) workLocked(fn func()) {
	work := func() {
		fn()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.workers--
	}
	g.workers++
	if g.ending { // the manager is closed
		go work()
		return
	}
	g.running.Go(work)
}

// end reports whether running is to be waited for: connections are being closed because of a panic, or one is being
// logged. Those that panic later are not waited for.
func (g *guard) end() (running bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ending = true
	return g.workers > 0
}

// forget ends the refusals of a connection that is closed or no longer registered.
func (g *guard) forget(c Conn) {
	if g.failing.Load() == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, found := g.failed[c]; found {
		delete(g.failed, c)
		g.failing.Add(-1)
	}
}

// forgetUnregistered forgets the connections that each, which visits the registered ones, does not find: they panicked
// after they were unregistered, and their Close has panicked too. No lock is held.
func (g *guard) forgetUnregistered(each func(func(userID string, c Conn))) {
	if g.failing.Load() == 0 {
		return
	}
	g.mu.Lock()
	left := maps.Clone(g.failed)
	g.mu.Unlock()
	each(func(_ string, c Conn) { delete(left, c) })
	for c := range left {
		g.forget(c)
	}
}

// report counts and logs a panic. It is called while the goroutine panics, so that the stack is the connection's. The
// caller may hold locks, under which nothing may be written and a handler of the log could not call the manager, so
// another goroutine logs.
func (g *guard) report(method string, of, problem any) {
	g.panics.Add(1)
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.last) < time.Second {
		return
	}
	g.last = time.Now()
	connection, kind, stack := fmt.Sprintf("%T", of), fmt.Sprintf("%T", problem), string(debug.Stack())
	g.workLocked(func() {
		g.logger.Error("panic in a connection", "method", method, "connection", connection, "type", kind, "stack", stack)
	})
}

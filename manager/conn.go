package manager

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is one client's connection. Its methods are called from any number of goroutines. They must return
// without waiting for the client and without calling the manager: Send is called with the lock of the upload held, or
// for SendToUser with the user's. A method that blocks delays these, and Close of the manager beyond its context. A
// connection whose Send panics is closed with InternalError, as its client misses a message.
//
// A Conn is a key in the registry, so it must be comparable; usually it is a pointer to a struct that is not empty.
// Connect refuses any other. Package outqueue has a bounded queue for a Conn of one's own, package managertest a Conn
// for tests.
type Conn interface {
	// Send queues a message.
	Send(f *Frame) Outcome
	// Close begins to close the connection: it flushes the queue, then sends the reason to the client. Further calls
	// have no effect.
	Close(reason CloseReason)
}

// Flusher is implemented by a Conn to which a publisher may write itself. Where an upload has few subscribers, the
// publisher sends with SendDeferred while it holds the upload's lock and calls Flush after unlocking, which is faster
// than waking another goroutine.
type Flusher interface {
	Conn
	// SendDeferred queues a message like Send. If flush is true, Flush will be called once, soon, by the same
	// goroutine: until then nothing that is queued needs to be written.
	SendDeferred(f *Frame) (o Outcome, flush bool)
	// Flush writes queued messages, without waiting for the client. It is called without locks.
	Flush()
}

// Terminator is implemented by a Conn whose end can be awaited when all connections are closed. Without it a connection
// counts as gone once Close has returned.
type Terminator interface {
	// Done returns a channel that is closed when nothing of the connection is left.
	Done() <-chan struct{}
	// Abort ends the connection at once, without flushing or telling the client.
	Abort()
}

// PositionTracker is implemented by a Conn whose client may or may not know positions, as on shoal.v1, and thus notices
// when messages are missing. Connections that do not are closed where messages of another node are lost for good.
type PositionTracker interface {
	TracksPositions() bool
}

// TokenHolder is implemented by a Conn that can be found by the token that it was opened with.
type TokenHolder interface {
	// TokenID returns the token's id, the `jti` claim of a JWT, or "" if it has none.
	TokenID() string
}

// TokenSet is implemented by a Conn that has shown several tokens, so that DisconnectToken finds it by each of them. It
// takes precedence over TokenHolder.
type TokenSet interface {
	// HasToken reports whether the connection has shown the token with an id, the `jti` claim of a JWT.
	HasToken(tokenID string) bool
}

// SilenceReporter is implemented by a Conn that knows when its client was last heard of. Where a user has too many
// connections, the one that has been silent longest gives way. SilentFor is called with the user's lock held: it must
// not block or call the manager.
type SilenceReporter interface {
	// SilentFor returns the time since the last data from the client.
	SilentFor() time.Duration
}

// ConnTime holds the time when a connection began. A Conn should embed one: a close order that a node learns of late
// spares the connections that began after it was issued. Connections without a ConnTime are closed by
// each order for their user or token. The zero value is ready for use.
type ConnTime struct{ at atomic.Int64 }

func (t *ConnTime) connTime() *atomic.Int64 { return &t.at }

// stampConn stores when a connection began in its ConnTime: at the given moment, or now for the zero Moment. It never
// moves that time back, and returns it: a connection that is registered again begins again.
func (m *Manager) stampConn(c Conn, began Moment) Moment {
	if began.at == 0 {
		began = m.Moment()
	}
	if t, ok := c.(interface{ connTime() *atomic.Int64 }); ok {
		t.connTime().CompareAndSwap(0, int64(began.at))
	}
	return Moment{max(began.at, connTime(c))}
}

// ConnAge returns how long ago a connection began, as ConnectSince defines it; 0 if it has not been or has no ConnTime.
func (m *Manager) ConnAge(c Conn) time.Duration {
	if at := connTime(c); at > 0 {
		return m.ages.now() - at
	}
	return 0
}

// connTime returns when a connection began, on Manager.ages, or 0 if it has no ConnTime.
func connTime(c Conn) time.Duration {
	if t, ok := c.(interface{ connTime() *atomic.Int64 }); ok {
		return time.Duration(t.connTime().Load())
	}
	return 0
}

// CloseReason is a WebSocket close code and the text that goes with it. The zero value stands for NormalClosure. A text
// of more than 123 bytes is cut, and invalid UTF-8 is removed.
type CloseReason struct {
	Code uint16
	Text string
}

// Check returns an *InvalidError unless the code may stand in a close frame that a server sends: 1000 to 1003, 1007 to
// 1014 and 3000 to 4999 (RFC 6455, 7.4), or 0 for 1000.
func (r CloseReason) Check() error {
	switch c := r.Code; {
	case c == 0, c >= 1000 && c <= 1003, c >= 1007 && c <= 1014, c >= 3000 && c <= 4999:
		return nil
	}
	return &InvalidError{"code", fmt.Sprintf("must be 1000 to 1003, 1007 to 1014 or 3000 to 4999, not %d", r.Code)}
}

// maxReasonBytes is the room for a text in a close frame.
const maxReasonBytes = 123

// orNormal returns the reason with a text that a close frame can hold, and NormalClosure for the zero value.
func (r CloseReason) orNormal() CloseReason {
	if r.Code == 0 {
		r.Code = NormalClosure.Code
	}
	r.Text = strings.ToValidUTF8(r.Text[:min(len(r.Text), maxReasonBytes)], "")
	return r
}

// Close reasons of this module, grouped by the action that the client should take.
var (
	// Stop.
	NormalClosure        = CloseReason{1000, ""}
	TooManyConnections   = CloseReason{1008, "Too many connections"}
	TooManyMessages      = CloseReason{1008, "Message rate exceeded"}
	TooManySubscriptions = CloseReason{1008, "Too many subscriptions"}
	MessageTooBig        = CloseReason{1009, "Message too big"}

	// Reconnect, with jitter, and recover.
	IdleTimeout     = CloseReason{1001, "Idle timeout"}
	ServerReloading = CloseReason{1012, "Server reloading"}
	SlowConsumer    = CloseReason{1013, "Slow consumer"}
	TryAgainLater   = CloseReason{1013, "Try again later"}

	// Reconnect, with growing pauses.
	InternalError = CloseReason{1011, "Internal error"}

	// Stop, or get a new token.
	AuthTimeout   = CloseReason{4001, "Authentication timeout"}
	AuthRequired  = CloseReason{4002, "Authentication required"}
	InvalidToken  = CloseReason{4003, "Invalid token"}
	InvalidFormat = CloseReason{4004, "Invalid message format"}
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
	// failed are the connections that are being closed because of a panic. They get no further message: their clients
	// would take it for the next one.
	failed map[Conn]struct{}
	// failing is the number of them, for callers without mu.
	failing atomic.Int32
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

// close calls Conn.Close.
func (g *guard) close(c Conn, reason CloseReason) {
	defer g.recovered("Close", c)
	c.Close(reason)
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
	go func() {
		g.close(c, InternalError)
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.failed, c)
		g.failing.Add(-1)
	}()
}

// report counts and logs a panic. It is called while the goroutine panics, so that the stack is the connection's.
func (g *guard) report(method string, of, problem any) {
	g.panics.Add(1)
	g.mu.Lock()
	logged := time.Since(g.last) >= time.Second
	if logged {
		g.last = time.Now()
	}
	g.mu.Unlock()
	if logged {
		g.logger.Error("panic in a connection", "method", method, "connection", fmt.Sprintf("%T", of),
			"type", fmt.Sprintf("%T", problem), "stack", string(debug.Stack()))
	}
}

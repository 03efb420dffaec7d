package manager

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// Conn is one client's connection. Its methods are called from any number of goroutines. They must return
// without waiting for the client and without calling the manager: Send is called with the lock of the upload held, or
// for SendToUser with the user's. A method that blocks delays these, and Close of the manager beyond its context. A
// connection whose Send panics is closed with InternalError, as its client misses a message.
//
// A Conn is a key in the registry, so it must be comparable; usually it is a pointer to a struct that is not empty.
// Connect refuses any other. It is registered with one Manager and for one user at a time: its replays and its ConnTime
// are not kept apart for several. Package outqueue has a bounded queue for a Conn of one's own, package managertest a
// Conn for tests.
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
// when messages are missing. Where messages of another node are lost for good, a connection whose client does not know
// positions is closed. A Conn without this method counts as one that passes positions and acknowledgements on.
type PositionTracker interface {
	// TracksPositions reports whether the client knows positions. It is called with the lock of an upload held: it must
	// not block or call the manager.
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

// stampConn stores when a connection began in its ConnTime, before it is registered: at the given moment, or now for
// the zero Moment. It returns the later of the two. The time of a connection that is registered does not change, and
// one that is registered again begins again.
func (m *Manager) stampConn(userID string, c Conn, began Moment) Moment {
	if began.at == 0 {
		began = m.Moment()
	}
	t, ok := c.(interface{ connTime() *atomic.Int64 })
	if ok && !t.connTime().CompareAndSwap(0, int64(began.at)) && !m.isRegistered(userID, c) {
		t.connTime().Store(int64(began.at))
	}
	return Moment{max(began.at, connTime(c))}
}

// isRegistered reports whether a connection is registered for a user.
func (m *Manager) isRegistered(userID string, c Conn) (registered bool) {
	m.registry.WithConnections(userID, func(conns []Conn) { registered = slices.Contains(conns, c) })
	return registered
}

// ConnAge returns how long ago a connection began, as ConnectSince defines it; 0 if it has not been or has no ConnTime.
func (m *Manager) ConnAge(c Conn) time.Duration {
	if at := connTime(c); at > 0 && m.checkCreated() == nil {
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

// orNormal returns the reason with a text that a close frame can hold, and NormalClosure for the zero value.
func (r CloseReason) orNormal() CloseReason {
	if r.Code == 0 {
		r.Code = NormalClosure.Code
	}
	r.Text = frame.CutReason(r.Text)
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

	// InternalError: reconnect, with growing pauses.
	InternalError = CloseReason{1011, "Internal error"}

	// Stop, or get a new token.
	AuthTimeout   = CloseReason{4001, "Authentication timeout"}
	AuthRequired  = CloseReason{4002, "Authentication required"}
	InvalidToken  = CloseReason{4003, "Invalid token"}
	InvalidFormat = CloseReason{4004, "Invalid message format"}
)

package server

import (
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/outbox"
	"github.com/shoal-go/shoal/manager"
)

// Client is one WebSocket connection or one event stream. Its exported methods may be called from any number of
// goroutines and do not wait for the peer.
//
// Messages of the client are handled one after the other, on one goroutine at a time. Messages to it are queued in its
// outbox, which the server's writers flush.
type Client struct {
	// Small fields stand together, so that no memory is lost between them.

	manager.ConnTime
	server *Server
	out    *outbox.Outbox
	input  input
	socket socket
	rate   messageRate
	// events are the uploads of an event stream; nil: the connection is a WebSocket.
	events *eventUploads
	// lastRead is when the last frame came from the client, on Server.clock.
	lastRead atomic.Int64
	lifetime lifetime
	claims   *claimQueue // nil without hooks for claims
	// allowed is the identity whose claims restrict the uploads of the connection; nil: no restriction.
	allowed atomic.Pointer[Identity]
	// peer is the client's address, the zero value if it is not known. age closes the connection after
	// Options.MaxAge.
	peer netip.Addr
	age  *time.Timer
	// pingGroup and pingIndex are the connection's place among those that get their pings together. They belong to
	// keepalive.
	pingGroup *pingGroup
	pingIndex int32
	// spare is how many subscribe messages the client may still send beyond its rate.
	spare int32
	// successDue: auth_success, which precedes all messages to the connection, has not been queued.
	successDue atomic.Bool
	v1         bool

	// entered is true once the connection is registered, and OnConnect called if there is one. It and all fields below
	// are protected by mu; only the outbox is locked under it.
	entered bool
	stage   stage
	// unchecked: the hook could not check the newest token of an open connection.
	unchecked bool
	mu        sync.Mutex
	identity  Identity
	// tokens are the ids of the tokens that the connection has shown.
	tokens []string
	// deadline fires when the client has not authenticated in time, and later when its token expires.
	deadline *time.Timer
	// reason is why the server closes the connection; nil while it is open or if the client has left.
	reason *manager.CloseReason
}

// stage is how far a connection has come.
type stage uint8

const (
	authenticating stage = iota
	open
	closing
)

// The interfaces of the manager that a Client implements.
var (
	_ manager.Conn       = (*Client)(nil)
	_ manager.Terminator = (*Client)(nil)
	_ manager.Replayer   = (*Client)(nil)
	_ manager.TokenSet   = (*Client)(nil)

	_ manager.ClaimObserver = (*Client)(nil)
)

func newClient(s *Server, conn net.Conn, v1 bool) *Client {
	c := &Client{server: s, v1: v1}
	c.attach(conn)
	c.spare = s.spareSubscribes()
	now := s.clock()
	c.rate = newMessageRate(s.settings.Load(), now)
	c.lastRead.Store(int64(now))
	c.claims = s.newClaimQueue()
	cfg := outbox.Config{Variant: frame.Base, Raw: c.input.raw, Overflow: c.onOverflow}
	if v1 {
		cfg.Variant = frame.V1
	}
	c.out = s.writers.Open(c.conn(), cfg)
	c.limitAge()
	return c
}

// limitAge starts the timer of Options.MaxAge.
func (c *Client) limitAge() {
	if most := c.server.opt.MaxAge; most > 0 {
		c.age = time.AfterFunc(most-rand.N(most/4), func() { c.Close(manager.ServerReloading) })
	}
}

// UserID returns the user that the connection belongs to, or "" before it has authenticated.
func (c *Client) UserID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity.UserID
}

// Identity returns the result of Identify, or of the last successful Authenticate: the zero value before the connection
// has authenticated. Uploads must not be changed.
func (c *Client) Identity() Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity
}

// TokenID returns the id of the token that most recently authenticated the user, or "".
func (c *Client) TokenID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity.TokenID
}

// RemoteAddr returns the address of the peer, or with port 0 the client's address that a proxy of
// Options.TrustedProxies names. It is a zero *net.TCPAddr where the connection has none.
func (c *Client) RemoteAddr() net.Addr {
	if c.server == nil { // a zero Client
		return &net.TCPAddr{}
	}
	direct := c.conn().RemoteAddr()
	if direct == nil { // the listener is the embedder's
		direct = &net.TCPAddr{}
	}
	if c.peer.IsValid() && addrOf(direct.String()) != c.peer {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.peer, 0))
	}
	return direct
}

// loggedAddr is the address of a client in a log line, found only if the line is written.
type loggedAddr struct{ *Client }

// LogValue implements [slog.LogValuer].
func (a loggedAddr) LogValue() slog.Value { return slog.AnyValue(a.RemoteAddr()) }

// The values of Client.Transport.
const (
	transportWebSocket = "websocket"
	transportEvents    = "sse"
)

// Transport returns "websocket", or "sse" for a stream of Server-Sent Events.
func (c *Client) Transport() string {
	if c.events != nil {
		return transportEvents
	}
	return transportWebSocket
}

// Subprotocol returns "shoal.v1" or "", as it is for an event stream.
func (c *Client) Subprotocol() string {
	if c.v1 && c.events == nil {
		return subprotocolV1
	}
	return ""
}

// CloseReason returns why the server closes or has closed the connection. It is zero while the connection is open, and
// if the client has left by itself.
func (c *Client) CloseReason() manager.CloseReason {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closeReasonLocked()
}

func (c *Client) closeReasonLocked() manager.CloseReason {
	if c.reason == nil {
		return manager.CloseReason{}
	}
	return *c.reason
}

// TracksPositions reports whether the client knows the positions of its uploads, as on shoal.v1.
func (c *Client) TracksPositions() bool { return c.v1 }

// Close begins to close the connection: queued frames are flushed, then a close frame with the reason is sent. Further
// calls have no effect.
//
// A zero code stands for 1000. A code that must not stand in a close frame is logged as an error and replaced by 1011.
func (c *Client) Close(reason manager.CloseReason) {
	if c.server == nil {
		return // a zero Client, which has no connection
	}
	if reason.Code == 0 {
		reason.Code = manager.NormalClosure.Code
	}
	if err := reason.Check(); err != nil {
		c.server.logs.closeCode.Log(c.server.opt.Logger, slog.LevelError, "invalid close code", "error", err)
		reason = manager.InternalError
	}
	reason.Text = frame.CutReason(reason.Text) // for hooks and event streams too
	if c.setClosing(reason) {
		c.closeOut(reason, c.reconnectNotice(reason)...)
	}
}

// Done returns a channel that is closed when the socket is.
func (c *Client) Done() <-chan struct{} {
	if c.server == nil { // a zero Client
		done := make(chan struct{})
		close(done)
		return done
	}
	return c.out.Done()
}

// Abort closes the socket at once.
func (c *Client) Abort() {
	if c.server != nil {
		c.out.Abort()
	}
}

// setClosing stores the reason for closing, and reports whether this is the first one. If so, the outbox must
// be closed and unregister called next.
func (c *Client) setClosing(reason manager.CloseReason) bool {
	return c.setClosingIf(func() bool { return true }, reason)
}

// setClosingIf is setClosing on a condition, which is called with c.mu held.
func (c *Client) setClosingIf(condition func() bool, reason manager.CloseReason) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return condition() && c.setClosingLocked(reason)
}

// setClosingLocked is setClosing for a caller that holds c.mu.
func (c *Client) setClosingLocked(reason manager.CloseReason) bool {
	if c.stage == closing {
		return false
	}
	c.stage, c.reason = closing, &reason
	return true
}

// closeOut closes the outbox of a client after setClosing.
func (c *Client) closeOut(reason manager.CloseReason, before ...*manager.Frame) {
	c.out.Close(c.closeFrame(reason), before...)
	c.unregister()
}

// unregister unregisters a client whose outbox is closing: earlier, that would cancel its recoveries. A client that
// does not answer is gone only after Options.CloseTimeout; leave still calls the hooks. A separate goroutine
// unregisters it, because the caller may hold locks of the manager.
func (c *Client) unregister() {
	if user := c.UserID(); user != "" {
		c.server.clients.Go(func() { c.server.manager.Disconnect(user, c) }) // c itself has not been released
	}
}

// reconnectNotice returns the frames that precede a close frame: on shoal.v1, when to come back after 1012 and 1013.
func (c *Client) reconnectNotice(reason manager.CloseReason) []*frame.Frame {
	switch {
	case reason.Code != manager.ServerReloading.Code && reason.Code != manager.TryAgainLater.Code:
		return nil
	case c.events != nil:
		return []*frame.Frame{reconnectEvent()}
	case c.v1:
		return []*frame.Frame{reconnectFrame()}
	}
	return nil
}

// variant returns the wire form of the connection's frames.
func (c *Client) variant() frame.Variant {
	if c.v1 {
		return frame.V1
	}
	return frame.Base
}

func (c *Client) authenticated() bool { return c.at(open) }

func (c *Client) at(s stage) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stage == s
}

// end ends a connection whose input has ended. It blocks until the socket is closed.
func (c *Client) end() {
	defer c.remove() // also after a hook has ended the goroutine
	c.endContexts()
	c.leave()
}

// remove gives back all that the connection has, when its socket is closed.
func (c *Client) remove() {
	// Closing a socket with unread input resets it, and the reset could overtake the close frame, so the rest is
	// discarded. This goroutine is the reader.
	if c.input.below != nil {
		c.input.below.waits = true
	}
	c.guard(func() { _, _ = io.Copy(io.Discard, c.conn()) })
	c.out.PeerGone()
	<-c.out.Done()
	c.server.poller.remove(c)
	c.server.keepalive.remove(c)
	if c.age != nil {
		c.age.Stop()
	}
	if c.events != nil {
		c.server.counters.eventStreams.Add(-1)
	}
	c.server.release(c.peer)
}

// maxFirstMessage bounds a message before the client has authenticated: a token fits, and an announced length costs
// little memory.
const maxFirstMessage = 16 << 10

// maxMessage returns how many bytes a message of the client may have.
func (c *Client) maxMessage() int {
	if limit := c.server.opt.MaxClientMessageBytes; !c.at(authenticating) || limit < maxFirstMessage {
		return limit
	}
	return maxFirstMessage
}

// leave unregisters the connection and calls OnUnsubscribe for each of its claims, then OnDisconnect.
func (c *Client) leave() {
	c.mu.Lock()
	user, entered := c.identity.UserID, c.entered
	c.stage = closing
	if c.deadline != nil {
		c.deadline.Stop()
	}
	if c.out.Overflowed() { // which may have come between setClosing and the close frame
		slow := manager.SlowConsumer
		c.reason = &slow
	}
	reason := c.closeReasonLocked()
	c.mu.Unlock()
	c.server.closings.count(reason)
	if user == "" {
		c.server.opt.Logger.Debug("connection left before it had authenticated", "code", reason.Code)
		return
	}
	c.server.manager.Disconnect(user, c)
	defer func() { // also after a hook has ended the goroutine
		c.server.opt.Logger.LogAttrs(c.server.ctx, slog.LevelDebug, "disconnected",
			slog.String("user", user), slog.Int("code", int(reason.Code)), slog.String("reason", reason.Text))
		if entered && c.server.opt.OnDisconnect != nil {
			c.guard(func() { c.runHook("OnDisconnect", func() { c.server.opt.OnDisconnect(c, reason) }) })
		}
	}()
	c.drainClaims()
}

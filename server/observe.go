package server

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// Observer gets durations while the server works. Its functions are called from many goroutines, also from those that
// write to clients, so they must return at once; nil ones are not called.
type Observer struct {
	// Written gets the time from the moment when this node had a message of an upload, by Publish or from the broker,
	// until it was handed to the kernel, for a sample of the writes. Messages of a recovery do not count.
	Written func(time.Duration)
	// Waited gets the time for which the oldest message of a slow connection had waited, at each write to it.
	Waited func(time.Duration)
	// Authenticated gets the duration of each call of Authenticate and Identify, Authorized that of each call of
	// Authorize.
	Authenticated func(Decision, time.Duration)
	Authorized    func(Decision, time.Duration)
}

// Decision is the outcome of a hook that decides about a client.
type Decision string

// The decisions. Unavailable: the hook could not decide.
const (
	Allowed     Decision = "allowed"
	Denied      Decision = "denied"
	Unavailable Decision = "unavailable"
)

// decided returns the Decision that the error of a hook means.
func decided(err error) Decision {
	var refused *TokenError
	switch {
	case err == nil:
		return Allowed
	case errors.As(err, &refused), errors.Is(err, ErrForbidden), errors.Is(err, http.ErrNoCookie):
		return Denied
	}
	return Unavailable
}

// observeHooks has the Observer get the durations of the hooks.
func (o *Options) observeHooks() {
	if to, hook := o.Observer.Authenticated, o.Authenticate; to != nil && hook != nil {
		o.Authenticate = func(ctx context.Context, token string) (id Identity, err error) {
			begin := time.Now()
			defer func() { to(decided(err), time.Since(begin)) }()
			return hook(ctx, token)
		}
	}
	if to, hook := o.Observer.Authenticated, o.Identify; to != nil && hook != nil {
		o.Identify = func(r *http.Request) (id Identity, err error) {
			begin := time.Now()
			defer func() { to(decided(err), time.Since(begin)) }()
			return hook(r)
		}
	}
	if to, hook := o.Observer.Authorized, o.Authorize; to != nil && hook != nil {
		o.Authorize = func(ctx context.Context, id Identity, uploadID string) (err error) {
			begin := time.Now()
			defer func() { to(decided(err), time.Since(begin)) }()
			return hook(ctx, id, uploadID)
		}
	}
}

// Closing is the number of connections that ended for one reason since the start.
type Closing struct {
	// Code is the close code, 0 for connections that their clients ended.
	Code uint16
	// Reason is a close reason of this module, "client" for connections that their clients ended, or "other" for a
	// reason of the application.
	Reason string
	Count  uint64
}

// closeReasons are the reasons that Closing tells apart. Others, which an application makes up, are counted by the kind
// of their code, so that their number is bounded.
var closeReasons = []manager.CloseReason{
	{}, manager.NormalClosure, manager.TooManyConnections, manager.TooManyMessages, manager.TooManySubscriptions,
	manager.MessageTooBig, manager.IdleTimeout, manager.ServerReloading, manager.SlowConsumer, manager.TryAgainLater,
	manager.InternalError, manager.AuthTimeout, manager.AuthRequired, manager.InvalidToken, manager.InvalidFormat,
	protocolError, invalidPayload,
}

// Reasons of the WebSocket protocol, whose texts name the violation and are not told apart.
var (
	protocolError  = manager.CloseReason{Code: 1002, Text: ""}
	invalidPayload = manager.CloseReason{Code: 1007, Text: ""}
)

// otherReasons are the kinds of codes of other reasons.
var otherReasons = []uint16{1000, 3000, 4000}

// closings counts the ended connections by reason: closeReasons, then otherReasons.
type closings [20]atomic.Uint64

// count counts the end of a connection.
func (c *closings) count(reason manager.CloseReason) {
	if reason.Code == protocolError.Code || reason.Code == invalidPayload.Code {
		reason.Text = ""
	}
	for i, known := range closeReasons {
		if reason == known {
			c[i].Add(1)
			return
		}
	}
	kind := 0
	for i, from := range otherReasons {
		if reason.Code >= from {
			kind = i
		}
	}
	c[len(closeReasons)+kind].Add(1)
}

func (c *closings) list() []Closing {
	all := make([]Closing, 0, len(c))
	for i, reason := range closeReasons {
		name := reason.Text
		switch reason {
		case manager.CloseReason{}:
			name = "client"
		case manager.NormalClosure:
			name = "normal"
		case protocolError:
			name = "protocol error"
		case invalidPayload:
			name = "invalid payload"
		}
		all = append(all, Closing{reason.Code, name, c[i].Load()})
	}
	for i, from := range otherReasons {
		all = append(all, Closing{from, "other", c[len(closeReasons)+i].Load()})
	}
	return all
}

// Closings returns the ended connections by reason, since the start; always the same reasons in the same order.
func (s *Server) Closings() []Closing { return s.closings.list() }

// ConnectionLimit returns the bound of connections, Options.MaxConnections as it is now; 0: there is none.
func (s *Server) ConnectionLimit() int {
	if s.manager == nil {
		return 0
	}
	return max(s.settings.Load().MaxConnections, 0)
}

// Inspection are figures of a server that take a visit to each connection.
type Inspection struct {
	// Base and V1 are the open WebSockets by subprotocol, authenticated or not, and Events the open event streams.
	Base, V1, Events int
	// QueuedMessages and QueuedBytes wait for all connections together, RecoveryBytes of them are stored messages of
	// recoveries.
	QueuedMessages, QueuedBytes, RecoveryBytes int
	// Closings are the result of Server.Closings.
	Closings []Closing
	// Sockets are the HTTP connections of Serve and ServeHandler.
	Sockets int
	// ConnectionLimit is Options.MaxConnections and HistoryLimit the manager's HistoryTotalBytes, 0 if there is no bound.
	ConnectionLimit, HistoryLimit int
}

// Inspect visits every connection: with a hundred thousand of them it takes some ten milliseconds, in which connections
// wait for microseconds only.
func (s *Server) Inspect() Inspection {
	if s.manager == nil {
		return Inspection{}
	}
	in := Inspection{
		Closings: s.Closings(), Sockets: s.sockets.len(),
		ConnectionLimit: s.ConnectionLimit(), HistoryLimit: max(s.manager.Limits().HistoryTotalBytes, 0),
	}
	s.keepalive.each(func(c *Client) {
		switch {
		case c.events != nil:
			in.Events++
		case c.v1:
			in.V1++
		default:
			in.Base++
		}
		p := c.out.Pending()
		in.QueuedMessages += p.Frames
		in.QueuedBytes += p.Bytes + p.RecoveryBytes
		in.RecoveryBytes += p.RecoveryBytes
	})
	return in
}

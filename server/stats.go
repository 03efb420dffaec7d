package server

import (
	"sync/atomic"

	"github.com/shoal-go/shoal/internal/logs"
	"github.com/shoal-go/shoal/manager"
)

// counters are the numbers of Stats that the server counts itself.
type counters struct {
	open, eventStreams        atomic.Int64
	unauthenticated           atomic.Uint64
	unavailable, forbidden    atomic.Uint64
	tooManySubscriptions      atomic.Uint64
	received, ignored, failed atomic.Uint64
	// Upgrades refused, by cause.
	refusedOrigin, refusedHandshake, refusedIdentity, refusedFull, refusedDraining, refusedSockets atomic.Uint64
	refusedPerIP, refusedRate                                                                      atomic.Uint64

	hijackFailed, acceptErrors, panics atomic.Uint64
}

// Stats are the counts of a server and its manager. Taken while they work, each is right for some moment.
type Stats struct {
	manager.Stats
	// Open is the number of connections, authenticated or not, and OpenByTransport the same by kind.
	Open            int64           `json:"open"`
	OpenByTransport OpenByTransport `json:"open_by_transport"`

	// Since the start: upgrades refused, tokens refused, client
	// messages received, ignored because neither the protocol nor OnMessage knows them, and refused, and connections
	// closed because their client was too slow.
	Refused         Refused `json:"refused_by_cause"`
	RefusedTotal    uint64  `json:"refused"`
	Unauthenticated uint64  `json:"unauthenticated"`
	// Unavailable counts tokens and subscriptions that could not be decided, because a hook failed, and Forbidden the
	// subscriptions that Authorize refused.
	Unavailable uint64 `json:"auth_unavailable"`
	Forbidden   uint64 `json:"forbidden"`
	// SubscriptionsRefused counts those beyond the user's limit.
	SubscriptionsRefused uint64 `json:"subscriptions_refused"`

	Received      uint64 `json:"received"`
	Ignored       uint64 `json:"ignored"`
	Failed        uint64 `json:"failed"`
	SlowConsumers uint64 `json:"slow_consumers"`

	// Since the start: failures of the server itself. Each is logged as well.
	HijackFailed uint64 `json:"hijack_failed"`
	AcceptErrors uint64 `json:"accept_errors"`
	Panics       uint64 `json:"panics"`

	// Frames, bytes and system calls that went out since the start, and connections that accept no data, now.
	SentFrames uint64 `json:"sent"`
	SentBytes  uint64 `json:"sent_bytes"`
	Writes     uint64 `json:"writes"`
	Stalled    int64  `json:"stalled"`
}

// OpenByTransport is the number of connections of each kind. An event stream counts as soon as it is admitted.
type OpenByTransport struct {
	WebSocket int64 `json:"websocket"`
	SSE       int64 `json:"sse"`
}

// Refused are the upgrades that were refused since the start.
type Refused struct {
	Origin    uint64 `json:"origin"`
	Handshake uint64 `json:"handshake"`
	Identity  uint64 `json:"identity"`
	// Full counts refusals because of Options.MaxConnections, and Draining those while the server drains.
	Full     uint64 `json:"full"`
	Draining uint64 `json:"draining"`
	// Sockets counts connections that were closed unread because of Options.MaxSockets.
	Sockets uint64 `json:"sockets"`
	// PerIP counts refusals because of Options.MaxConnectionsPerIP, and Rate those because of Options.ConnectRate.
	PerIP uint64 `json:"per_ip"`
	Rate  uint64 `json:"rate"`
}

// Stats returns the counts of the server and its manager.
func (s *Server) Stats() Stats {
	if s.manager == nil {
		return Stats{}
	}
	out := s.writers.Stats()
	n := &s.counters
	refused := Refused{
		Origin:    n.refusedOrigin.Load(),
		Handshake: n.refusedHandshake.Load(),
		Identity:  n.refusedIdentity.Load(),
		Full:      n.refusedFull.Load(),
		Draining:  n.refusedDraining.Load(),
		Sockets:   n.refusedSockets.Load(),
		PerIP:     n.refusedPerIP.Load(),
		Rate:      n.refusedRate.Load(),
	}
	open, streams := n.open.Load(), n.eventStreams.Load()
	return Stats{
		Stats:           s.manager.Stats(),
		Open:            open,
		OpenByTransport: OpenByTransport{WebSocket: max(open-streams, 0), SSE: streams},
		Refused:         refused,
		RefusedTotal: refused.Origin + refused.Handshake + refused.Identity + refused.Full +
			refused.Draining + refused.Sockets + refused.PerIP + refused.Rate,
		Unauthenticated: n.unauthenticated.Load(),
		Unavailable:     n.unavailable.Load(),
		Forbidden:       n.forbidden.Load(),
		Received:        n.received.Load(),

		SubscriptionsRefused: n.tooManySubscriptions.Load(),

		Ignored:       n.ignored.Load(),
		Failed:        n.failed.Load(),
		SlowConsumers: out.Overflowed,
		HijackFailed:  n.hijackFailed.Load(),
		AcceptErrors:  n.acceptErrors.Load(),
		Panics:        n.panics.Load() + out.Panics,
		SentFrames:    out.Frames,
		SentBytes:     out.Bytes,
		Writes:        out.Writes,
		Stalled:       out.Stalled,
	}
}

// sampledLogs are the bounded log lines of a server, by the kind of event.
type sampledLogs struct {
	origin, identify, authenticate, refusedToken, authorize, forbidden logs.Sampled
	hijack, panics, accept, closeCode, proxies, authorizeAPI           logs.Sampled
	invalidUser, connect                                               logs.Sampled
}

// Closing is the number of connections that ended for one reason since the start.
type Closing struct {
	// Code is the close code, 0 for connections that their clients ended; for reasons of the application 1000, 3000 or
	// 4000, which stand for the codes from there on.
	Code uint16
	// Reason is a close reason of this module, "normal", "protocol error" or "invalid payload" for the codes 1000, 1002
	// and 1007, "client" for connections that their clients ended, or "other" for a reason of the application.
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

// Reasons of the WebSocket protocol, whose texts name the violation; they are counted together.
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

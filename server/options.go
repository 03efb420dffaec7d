package server

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// TokenExpiry decides whether the expiry of a token closes its connections.
type TokenExpiry uint8

const (
	// ExpiryEnforced closes a connection when its token expires, unless it has shown a fresh one.
	ExpiryEnforced TokenExpiry = iota
	// ExpiryOnConnect checks the expiry only when a connection authenticates, for clients that do not renew their tokens.
	ExpiryOnConnect
)

// Options configure a Server. In every field 0 is the documented default. A negative value switches a limit off where
// the comment says so; where that would be unsafe, New returns an error.
type Options struct {
	// Manager does the work. Required. The server does not close it.
	Manager *manager.Manager

	// Authenticate returns the identity that a token belongs to. Required, unless Identify is given.
	Authenticate Authenticate
	// Authorize decides which uploads a connection may follow. Required; AuthorizeOpen allows all.
	Authorize Authorize
	// Identify replaces the authentication of the protocol: it returns the owner of a connection by the request of the
	// upgrade or of the event stream, for example by a cookie. A *TokenError or http.ErrNoCookie refuses it with 401,
	// ErrForbidden with 403; any other error means that it cannot be decided now: it is logged and answered with 503. The
	// request's context ends with the request, with the server and after HookTimeout. The client gets no auth_success; an
	// auth message is still handled if Authenticate is given, and else one of the application.
	Identify func(*http.Request) (Identity, error)

	// Ready is a further condition of /readyz, for example Verifier.Ready of jwtauth: an error makes it answer 503 with
	// the error's text. It must not block. nil: none.
	Ready func() error

	// OnConnect is called when a connection has been authenticated and receives messages from now on, OnDisconnect when
	// such a connection is gone. Both are called once; OnDisconnect only if OnConnect was called, also if that panicked.
	// reason is why the server closed the connection; it is zero if the client left by itself. Client.Context has ended
	// then, as it has when OnUnsubscribe is called for the claims that are left: calls with a context need another one.
	OnConnect    func(*Client)
	OnDisconnect func(c *Client, reason manager.CloseReason)
	// OnSubscribe is called when a connection begins to follow an upload with a claim of its own, OnUnsubscribe when that
	// claim has ended. For each claim both are called once, OnSubscribe first, after OnConnect has returned and before
	// OnDisconnect is called. A slow hook delays further messages of its connection only.
	OnSubscribe   func(*Client, Subscription)
	OnUnsubscribe func(*Client, Subscription)
	// OnMessage is called for messages of an authenticated client that are not part of the protocol, sequentially for each
	// connection, and may answer with Client.SendText and Client.SendBinary. It reports whether it has handled the
	// message; others are ignored, or answered with an error on shoal.v1.
	OnMessage func(*Client, Incoming) bool

	// AllowedOrigins are the origins, like https://app.example.com, of the pages that may connect; see CheckOrigin. Empty:
	// only pages of the host that they connect to. AnyLocalOrigin also allows every origin on the local machine, for
	// development.
	AllowedOrigins []string
	AnyLocalOrigin bool

	// APIKeys are the keys of the HTTP API; see CheckAPIKey. Empty: it answers 403.
	APIKeys []string
	// AuthorizeAPI, in place of APIKeys, decides whether a request may use the HTTP API: nil if so, ErrForbidden for 403,
	// a *TokenError for 401. Any other error means that it cannot be decided now: it is logged and answered with 503. The
	// request's context ends with the request, with the server and after HookTimeout; its body must not be read. Where
	// cookies decide, other sites could forge requests: http.CrossOriginProtection in front refuses these.
	AuthorizeAPI func(*http.Request) error

	// PathPrefix stands in front of every public path, for a reverse proxy that passes paths on unchanged: with "/shoal"
	// the API is at /shoal/v1/. See CheckPath. "": none.
	PathPrefix string
	// WebSocketPath is the path of the WebSocket, behind PathPrefix. See CheckPath. "": /ws/uploads.
	WebSocketPath string

	// MaxConnections bounds the WebSockets and event streams of this server, authenticated or not. 0 or negative: no
	// bound.
	MaxConnections int
	// MaxSockets bounds the connections that Serve and ServeHandler have accepted, WebSockets and event streams among
	// them. At the bound a new connection replaces the one without an API key that has waited longest for a request, or
	// else the one with a key, if that has waited for 10 s; if all others are WebSockets or event streams, handle a
	// request or have just shown an API key, it is closed at once. It should leave room below the limit of open files.
	// 0 or negative: no bound.
	MaxSockets int
	// TrustedProxies are the addresses and ranges (CIDR) of proxies whose X-Forwarded-For or Forwarded header is believed;
	// "unix" stands for peers on Unix sockets. Each must append its peer's address to one of the headers and should remove
	// the other one. Empty: the client's address is that of its connection.
	TrustedProxies []string
	// MaxConnectionsPerIP bounds the connections of one address, or of one IPv6 /64: further ones are answered with 429.
	// Clients whose address is not known are not bounded. 0 or negative: no bound.
	MaxConnectionsPerIP int
	// ConnectRate is the number of connections that are accepted per second, after a burst of as many: further ones are
	// answered with 503 and Retry-After. 0 or negative: no bound.
	ConnectRate float64
	// MaxAge bounds the age of a connection, which is then closed with ServerReloading so that its client reconnects,
	// perhaps to another server. Each connection gets a random age from three quarters of MaxAge on. 0 or negative: no
	// bound.
	MaxAge time.Duration

	// MaxMessageBytes bounds a message that is published through the HTTP API. It must not exceed the manager's limit.
	// 0: the manager's limit.
	MaxMessageBytes int
	// MaxBodiesBytes bounds the request bodies that the HTTP API handles at a time, all together with their messages:
	// further requests are answered with 503. The garbage collector may need as much again. The largest request always
	// fits, which takes 43 MiB, or more if MaxMessageBytes exceeds 8 MiB. 0: 256 MiB.
	MaxBodiesBytes int
	// MaxClientMessageBytes bounds a message of a client, 1 KiB to 1 GiB; before it has authenticated the bound is at most
	// 16 KiB. A client that announces a message gets memory for it before it has sent it. 0: 64 KiB.
	MaxClientMessageBytes int
	// ClientMessageRate is the number of messages per second that a client may send after a burst of ClientMessageBurst. A
	// connection may also once send as many subscribe messages as a user may follow uploads. It must allow the two
	// messages with which a page answers a ping. 0: 50; negative: no limit.
	ClientMessageRate float64
	// ClientMessageBurst is the number of messages that a client may send at once, at least 4. 0: 200.
	ClientMessageBurst int

	// AuthTimeout is how long a client may take for its first message. 0: 5 s.
	AuthTimeout time.Duration
	// HookTimeout bounds the context of each call of Authenticate, Identify and AuthorizeAPI, and of all calls of
	// Authorize on behalf of one message. 0: 10 s; negative: no bound, they end with the connection or the request, and
	// with the server.
	HookTimeout time.Duration
	// TokenExpiry decides whether a connection ends with its token. Zero: ExpiryEnforced.
	TokenExpiry TokenExpiry
	// PingInterval is how often a client is pinged (0: 30 s); one from which nothing came for IdleTimeout
	// (0: 90 s) is disconnected.
	PingInterval time.Duration
	IdleTimeout  time.Duration
	// CloseTimeout bounds the closing of a connection: flushing, the close frame and the client's answer. 0: 5 s.
	CloseTimeout time.Duration

	// QueueBytes (0: 1 MiB), QueueMessages (0: 1024) and QueueAge (0: 10 s) limit a connection's queue of live messages;
	// a client that exceeds them is closed with 1013. QueueAge is the age of the oldest message, and the time without
	// progress in a recovery. A burst may exceed the first two until its client has had a second to read it, up to 16
	// times QueueBytes (at least 16 MiB) and 64 times QueueMessages (at least 65,536).
	QueueBytes    int
	QueueMessages int
	QueueAge      time.Duration
	// UnsentBytes limits the bytes of one TCP connection that the kernel holds and has not sent yet, beside one write of
	// at most 64 KiB: messages beyond it remain in the queue, where a newer state may replace an older one, so that a
	// client on a slow link gets fresh states. After the socket has refused bytes, the kernel holds at most half of it,
	// beside one write of at most 4 KiB or one larger message. 0: 16 KiB; negative: the system's limit, up to some
	// megabytes. On systems other than Linux and macOS the whole send buffer is limited.
	UnsentBytes int
	// RecoveryBytes limits the stored messages that are queued for one connection while its client recovers: the others
	// are read from the history when there is room. Each message counts with 32 bytes more than its size. If the history
	// has dropped messages by then, the client gets the new position and the newest message. 0: 8 MiB.
	RecoveryBytes int

	// Observer gets durations, for histograms. Server.Stats and Server.Inspect have everything that can be counted.
	Observer Observer

	// Logger gets the events for an operator, never a token, key or payload. nil: nothing is logged.
	Logger *slog.Logger
}

// minClientMessage leaves room for a token, and for a subscription with a long id. maxClientMessage is what a program
// may have memory for: the length that a client announces is reserved.
const minClientMessage, maxClientMessage = 1 << 10, 1 << 30

// FrameOverhead is an upper bound of the bytes that a message needs in a queue beyond its payload: the header of its
// frame, and the offset and the upload that shoal.v1 adds. QueueBytes must exceed the largest message
// by at least this many bytes.
const FrameOverhead = 1 << 10

// CheckPath returns an error unless path is one or more segments, each a slash and letters, digits, "-", "_", "~" or
// ".", like /a/b-c: a path that proxies and browsers pass on unchanged.
func CheckPath(path string) error {
	segments := strings.Split(path, "/")
	if len(segments) == 1 || segments[0] != "" {
		return errors.New("must begin with a slash")
	}
	for _, segment := range segments[1:] {
		switch {
		case segment == "":
			return errors.New("must not end with a slash, nor have two in a row")
		case segment == "." || segment == "..":
			return errors.New(`must not have the segments "." and ".."`)
		case strings.ContainsFunc(segment, reservedInPath):
			return errors.New(`must consist of letters, digits, "-", "_", "~" and "." between its slashes`)
		}
	}
	return nil
}

func reservedInPath(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	return !letter && !(r >= '0' && r <= '9') && !strings.ContainsRune("-_~.", r)
}

// CheckAPIKey returns an error, which does not repeat the key, for a key that no Authorization header can contain.
func CheckAPIKey(key string) error {
	switch {
	case key == "":
		return errors.New("is empty")
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("has characters that no HTTP header can contain, want visible ASCII without spaces")
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.Manager != nil {
		o.MaxMessageBytes = cmp.Or(o.MaxMessageBytes, o.Manager.Limits().MaxMessageBytes)
	}
	o.WebSocketPath = cmp.Or(o.WebSocketPath, defaultWebSocketPath)
	o.MaxMessageBytes = cmp.Or(o.MaxMessageBytes, 64<<10)
	o.MaxBodiesBytes = cmp.Or(o.MaxBodiesBytes, maxBodiesBytes)
	o.MaxClientMessageBytes = cmp.Or(o.MaxClientMessageBytes, 64<<10)
	o.ClientMessageRate = cmp.Or(o.ClientMessageRate, 50)
	o.ClientMessageBurst = cmp.Or(o.ClientMessageBurst, 200)
	o.AuthTimeout = cmp.Or(o.AuthTimeout, 5*time.Second)
	o.HookTimeout = cmp.Or(o.HookTimeout, 10*time.Second)
	o.PingInterval = cmp.Or(o.PingInterval, 30*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 90*time.Second)
	o.CloseTimeout = cmp.Or(o.CloseTimeout, 5*time.Second)
	o.QueueBytes = cmp.Or(o.QueueBytes, 1<<20)
	o.QueueMessages = cmp.Or(o.QueueMessages, 1024)
	o.RecoveryBytes = cmp.Or(o.RecoveryBytes, 8<<20)
	unlimitedRate(&o.ClientMessageRate)
	if o.HookTimeout < 0 {
		o.HookTimeout = math.MaxInt64
	}
	o.QueueAge = cmp.Or(o.QueueAge, 10*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return o
}

func (o Options) validate() error {
	var all []error
	refuse := func(field string, value any, want string) {
		all = append(all, fmt.Errorf("server: Options.%s is %v, want %s", field, value, want))
	}
	if o.Manager == nil {
		refuse("Manager", nil, "a manager")
	}
	if o.Authenticate == nil && o.Identify == nil {
		refuse("Authenticate", nil, "a function, or one for Identify")
	}
	if o.Authorize == nil {
		refuse("Authorize", nil, "a function, AuthorizeOpen to allow everything")
	}
	all = append(all, o.settings().validate(o.PingInterval))
	all = append(all, o.validatePaths()...)
	all = append(all, o.validateSizes()...)
	for name, n := range map[string]int{
		"MaxMessageBytes": o.MaxMessageBytes, "MaxBodiesBytes": o.MaxBodiesBytes,
		"QueueBytes": o.QueueBytes, "QueueMessages": o.QueueMessages, "RecoveryBytes": o.RecoveryBytes,
	} {
		if n < 1 {
			refuse(name, n, "at least 1")
		}
	}
	if n := o.MaxClientMessageBytes; n < minClientMessage || n > maxClientMessage {
		refuse("MaxClientMessageBytes", n, fmt.Sprintf("%d to %d", minClientMessage, maxClientMessage))
	}
	for name, d := range map[string]time.Duration{
		"AuthTimeout": o.AuthTimeout, "HookTimeout": o.HookTimeout, "PingInterval": o.PingInterval,
		"IdleTimeout": o.IdleTimeout, "CloseTimeout": o.CloseTimeout, "QueueAge": o.QueueAge,
	} {
		if d < time.Millisecond {
			refuse(name, d, "at least 1ms")
		}
	}
	if o.TokenExpiry > ExpiryOnConnect {
		refuse("TokenExpiry", o.TokenExpiry, "ExpiryEnforced or ExpiryOnConnect")
	}
	if o.MaxAge > 0 && o.MaxAge < time.Second {
		refuse("MaxAge", o.MaxAge, "0 (no bound) or at least 1s")
	}
	if o.IdleTimeout <= o.PingInterval {
		refuse("IdleTimeout", o.IdleTimeout, fmt.Sprintf("more than PingInterval, which is %v", o.PingInterval))
	}
	return errors.Join(all...)
}

// validatePaths checks the paths, and that nothing decides twice who may use the API.
func (o Options) validatePaths() (all []error) {
	if o.PathPrefix != "" {
		if err := CheckPath(o.PathPrefix); err != nil {
			all = append(all, fmt.Errorf("server: Options.PathPrefix is %q, it %w", o.PathPrefix, err))
		}
	}
	if err := CheckPath(o.WebSocketPath); err != nil {
		all = append(all, fmt.Errorf("server: Options.WebSocketPath is %q, it %w", o.WebSocketPath, err))
	}
	for _, taken := range []struct{ path, owner string }{{"/v1", "the API's"}, {eventsPath, "that of event streams"}} {
		if strings.HasPrefix(o.WebSocketPath+"/", taken.path+"/") {
			all = append(all, fmt.Errorf("server: Options.WebSocketPath is %q, it must not be under %s, which is %s",
				o.WebSocketPath, taken.path, taken.owner))
		}
	}
	if o.AuthorizeAPI != nil && len(o.APIKeys) > 0 {
		all = append(all, errors.New("server: Options.AuthorizeAPI and Options.APIKeys exclude each other, give one"))
	}
	return all
}

// validateSizes compares the sizes of messages with those of the manager and of the queues.
func (o Options) validateSizes() (all []error) {
	if o.Manager == nil {
		return nil
	}
	most := o.Manager.Limits().MaxMessageBytes
	if o.MaxMessageBytes > most {
		all = append(all, fmt.Errorf("server: Options.MaxMessageBytes is %d, want at most the manager's limit, which is %d",
			o.MaxMessageBytes, most))
	}
	if o.QueueBytes > 0 && o.QueueBytes-FrameOverhead < most { // the sum could overflow
		all = append(all, fmt.Errorf("server: Options.QueueBytes is %d, want at least the manager's MaxMessageBytes "+
			"of %d and FrameOverhead of %d, or the largest message could never be sent",
			o.QueueBytes, most, FrameOverhead))
	}
	return all
}

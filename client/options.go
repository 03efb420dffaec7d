package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options configures a Client. The zero value of each field but Token and APIKey is its default.
type Options struct {
	// Token returns a JSON Web Token of the user. It is called before a connection that needs a fresh one and before the
	// current one expires, from one goroutine at a time. Its context ends with ConnectTimeout or with Close. An error is
	// tried again later, unless it is marked with Permanent. Follow requires it.
	Token func(ctx context.Context) (string, error)
	// APIKey is the key of the HTTP API. Publish requires it.
	APIKey string
	// HTTPClient performs the upgrade and the requests of the HTTP API. Redirects are not followed, so that a token or key
	// reaches no other server, and Close leaves its idle connections to its owner. nil: one of the client's own, or
	// http.DefaultTransport where a program has replaced it by another type.
	HTTPClient *http.Client
	// ConnectTimeout is the longest time for connecting and authenticating, and for one request to the HTTP API. 0: 10 s.
	ConnectTimeout time.Duration
	// IdleTimeout is the longest time without any data from the server, which is asked for a sign of life before that.
	// 0: 75 s.
	IdleTimeout time.Duration
	// MinBackoff and MaxBackoff bound the doubling delay; a random part of it passes before a reconnect. 0: 500 ms, 15 s.
	MinBackoff, MaxBackoff time.Duration
	// GiveUpAfter is the time without a connection, or with none that lasts for 5 s, after which loops end with
	// ErrUnreachable. 0: never.
	GiveUpAfter time.Duration
	// PublishTimeout is the time for which Publish tries to reach the server. 0: 30 s. Negative: it tries once.
	PublishTimeout time.Duration
	// QueueMessages bounds the messages queued for one loop. 0: 256.
	QueueMessages int
	// QueueBytes bounds the messages queued for all loops together, beyond one message for each. 0: 16 MiB.
	QueueBytes int
	// MaxMessageBytes bounds a message of the server. 0: 4 MiB.
	MaxMessageBytes int64
	// StateKey returns the key of a message that a newer one with the same action and key may replace while a loop is
	// slow, and false for a message that must not be lost. nil: the upload_progress messages of an upload replace each
	// other. It is called with locks held and must not block or call the client.
	StateKey func(m Message) (key string, ok bool)
	// OnMessage gets messages to the user that belong to no upload, from the goroutine that reads: it must not block.
	OnMessage func(m Message)
	// OnRetry gets each failed attempt of Publish that is repeated after a delay, from the goroutine of the call.
	OnRetry func(err error, delay time.Duration)
	// OnState gets each change of the connection, from a goroutine of the client: in order, one call at a time. It must
	// not block or call Close.
	OnState func(s State)

	closeIdle func() // closes the idle connections of the client's own transport
}

// State is a state of the connection.
type State struct {
	// Status is the new status.
	Status Status
	// Err is the reason for Waiting and Stopped.
	Err error
	// Retry is the time until the next attempt, for Waiting.
	Retry time.Duration
}

// Status is the status of a connection.
type Status int

// The statuses of a connection.
const (
	// Connecting means that a connection is being opened.
	Connecting Status = iota
	// Live means that the connection is open and authenticated.
	Live
	// Waiting means that the connection was lost and the next attempt is delayed.
	Waiting
	// Stopped means that there is no connection and will be no further attempt until Follow is called again: after an
	// error that is final, after Close, or since the connection broke while there was no loop.
	Stopped
)

func (s Status) String() string {
	switch s {
	case Connecting:
		return "connecting"
	case Live:
		return "live"
	case Waiting:
		return "waiting"
	case Stopped:
		return "stopped"
	}
	return fmt.Sprintf("Status(%d)", int(s))
}

func (o Options) withDefaults() Options {
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 10*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 75*time.Second)
	o.MinBackoff = cmp.Or(o.MinBackoff, 500*time.Millisecond)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, max(15*time.Second, o.MinBackoff))
	o.PublishTimeout = cmp.Or(o.PublishTimeout, 30*time.Second)
	o.QueueMessages = cmp.Or(o.QueueMessages, 256)
	o.QueueBytes = cmp.Or(o.QueueBytes, 16<<20)
	o.MaxMessageBytes = cmp.Or(o.MaxMessageBytes, 4<<20)
	if o.StateKey == nil {
		o.StateKey = func(m Message) (string, bool) { return "", m.Action == ActionProgress }
	}
	if o.OnMessage == nil {
		o.OnMessage = func(Message) {}
	}
	if o.OnRetry == nil {
		o.OnRetry = func(error, time.Duration) {}
	}
	if o.OnState == nil {
		o.OnState = func(State) {}
	}
	o.closeIdle = func() {}
	if o.HTTPClient == nil {
		o.HTTPClient = &http.Client{}
		// A program may have put another type there, for example to trace its requests: that is used, and shared.
		if standard, ok := http.DefaultTransport.(*http.Transport); ok {
			transport := standard.Clone()
			o.HTTPClient.Transport, o.closeIdle = transport, transport.CloseIdleConnections
		}
	}
	own := *o.HTTPClient
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.HTTPClient = &own
	return o
}

// validate returns all errors of options with defaults.
func (o Options) validate() error {
	var all []error
	refuse := func(field string, value any, want string) {
		all = append(all, fmt.Errorf("client: Options.%s is %v, want %s", field, value, want))
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"ConnectTimeout", o.ConnectTimeout}, {"IdleTimeout", o.IdleTimeout}, {"MinBackoff", o.MinBackoff},
		{"GiveUpAfter", o.GiveUpAfter},
	} {
		if d.value < 0 {
			refuse(d.field, d.value, "a duration that is not negative")
		}
	}
	if o.MaxBackoff < o.MinBackoff {
		refuse("MaxBackoff", o.MaxBackoff, fmt.Sprintf("at least MinBackoff, which is %v", o.MinBackoff))
	}
	if o.QueueMessages < 0 {
		refuse("QueueMessages", o.QueueMessages, "a number that is not negative")
	}
	if o.QueueBytes < 0 {
		refuse("QueueBytes", o.QueueBytes, "a number that is not negative")
	}
	if o.MaxMessageBytes < 0 {
		refuse("MaxMessageBytes", o.MaxMessageBytes, "a number that is not negative")
	}
	if strings.ContainsFunc(o.APIKey, func(r rune) bool { return r <= ' ' || r > '~' }) {
		all = append(all, errors.New("client: Options.APIKey must have visible ASCII characters only"))
	}
	return errors.Join(all...)
}

// parseURL returns the server's address, whose path is a prefix of the server's paths.
func parseURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("client: the URL cannot be parsed, want one such as https://shoal.example.com")
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("client: the URL is %q, want one such as https://shoal.example.com, without a query",
			u.Redacted())
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawPath = strings.TrimSuffix(u.RawPath, "/")
	return u, nil
}

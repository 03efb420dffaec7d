package redisbroker

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Options say where Redis is and how it is used. The zero value of each field but URL is the documented default.
type Options struct {
	// URL says where Redis is, in one of these forms, with rediss for redis where the connection is to be TLS:
	//
	//	redis://[user:password@]host[:port][/db]
	//	redis+sentinel://[user:password@]sentinel[:port],sentinel[:port]…/master[/db]
	//	redis+cluster://[user:password@]node[:port],node[:port]…
	//
	// The user and the password are those of Redis; ?sentinel_user= and ?sentinel_password= are those of the
	// sentinels. With ?insecure_skip_verify=true the certificates of TLS are not verified.
	URL string
	// TLS replaces the configuration of TLS connections, for a private certificate authority or a client certificate.
	// It requires a URL that begins with rediss. nil: the authorities of the system.
	TLS *tls.Config
	// ChannelPrefix is the prefix that broker.WithPrefix adds to the channels, if it does: the permissions for channels
	// with it are tried. It changes no name.
	ChannelPrefix string
	// Messages is the largest number of messages kept of a channel. 0: 64.
	Messages int
	// TTL is how long a message is kept. 0: 10 minutes.
	TTL time.Duration
	// ProbeInterval is how often each server is sent a message to ourselves; when three in a row do not come
	// back, the connection is replaced. 0: one second.
	ProbeInterval time.Duration
	// Timeout is how long a call whose context has no deadline may take, and how long to wait for a
	// connection. 0: 5 seconds.
	Timeout time.Duration
	// MaxPayload is the largest payload taken, in bytes: a larger one is refused by Publish and Store, and dropped
	// when it comes from elsewhere. 0: 1 MiB.
	MaxPayload int
	// Logger receives dropped messages and lost connections, never a payload or a password.
	// nil: nothing is logged.
	Logger *slog.Logger
}

// The limits of options. Redis keeps up to 2^63 entries; a script that reads so many blocks it.
const (
	maxMessages = 10_000
	minTTL      = 10 * time.Millisecond
	minInterval = 10 * time.Millisecond
)

// withDefaults returns the options with the defaults filled in.
func (o Options) withDefaults() Options {
	if o.Messages == 0 {
		o.Messages = 64
	}
	if o.TTL == 0 {
		o.TTL = 10 * time.Minute
	}
	if o.ProbeInterval == 0 {
		o.ProbeInterval = time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.MaxPayload == 0 {
		o.MaxPayload = 1 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// validate returns all complaints about options with their defaults, and the parsed URL.
func (o Options) validate() (target, error) {
	var complaints []error
	complain := func(ok bool, format string, args ...any) {
		if !ok {
			complaints = append(complaints, fmt.Errorf("redisbroker: "+format, args...))
		}
	}
	to, err := parseURL(o.URL)
	if err != nil {
		complaints = append(complaints, err)
	}
	if o.TLS != nil {
		complain(to.tls != nil || err != nil, "TLS is set, but the URL does not begin with rediss")
		skip := to.tls != nil && to.tls.InsecureSkipVerify
		to.tls = o.TLS.Clone()
		to.tls.InsecureSkipVerify = to.tls.InsecureSkipVerify || skip
	}
	complain(o.Messages >= 1 && o.Messages <= maxMessages,
		"Messages is %d, must be from 1 to %d", o.Messages, maxMessages)
	complain(o.TTL >= minTTL, "TTL is %v, must be at least %v", o.TTL, minTTL)
	complain(o.ProbeInterval >= minInterval, "ProbeInterval is %v, must be at least %v", o.ProbeInterval, minInterval)
	complain(o.Timeout > 0, "Timeout is %v, must be positive", o.Timeout)
	complain(o.MaxPayload > 0, "MaxPayload is %d, must be positive", o.MaxPayload)
	return to, errors.Join(complaints...)
}

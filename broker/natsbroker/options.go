package natsbroker

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Options configure a Broker. The zero value of every field except the server selects the documented default.
type Options struct {
	// URL is the server: nats://host:port or tls://host:port, with user:password@ or token@ before the host where
	// required; servers of a cluster are separated by commas. Servers that these advertise are used when none of
	// them is reached; a cluster behind one address prevents that by no_advertise.
	URL string
	// Server, instead of URL, is a NATS server in this process, which is connected to without a socket. If it has a
	// method MemoryLimit() int64, three quarters of that are the default of MaxBytes. If it has a method Routes() []uint64
	// that returns the ids of its connections to other servers, the end of one of them is an interruption.
	Server nats.InProcessConnProvider
	// Token, CredentialsFile (a .creds file) and NKeyFile (the seed of an nkey) are other ways to authenticate.
	Token           string
	CredentialsFile string
	NKeyFile        string
	// TLS configures connections that need more than a tls:// URL, for example a private certificate authority.
	TLS *tls.Config
	// RootCAs returns the authorities of the servers' certificates for a new connection, in place of those of TLS.
	// nil: those of TLS.
	RootCAs func() *x509.CertPool
	// Name is the connection's name in the server's monitoring. "": shoal.
	Name string

	// Stream is the name of the JetStream stream. "": SHOAL. It is created if it does not exist.
	Stream string
	// Messages is how many messages of a channel are stored. 0: 64.
	Messages int
	// TTL is how long a message is stored. 0: 10 minutes.
	TTL time.Duration
	// HistoryBytes bounds the payloads that History returns of one channel; the newest message is always among
	// them. 0 or negative: no bound.
	HistoryBytes int
	// MaxBytes bounds the stream. When it is full, the oldest messages are dropped; without a bound the server
	// refuses new messages when its own or the account's limit is reached. A stream that exists with a lower bound gets
	// this one. 0: see Server, else an existing stream keeps its bound, and a new one has none; negative: no bound, also
	// for an existing stream.
	MaxBytes int64
	// Replicas is the number of servers of a cluster that store each message. 0: 1.
	Replicas int
	// File stores messages in files instead of in memory, so that they survive a restart of all servers.
	File bool

	// ConnectTimeout bounds one attempt to connect. 0: 2 seconds.
	ConnectTimeout time.Duration
	// CallTimeout bounds a call whose context has no deadline. 0: 5 seconds.
	CallTimeout time.Duration
	// ProbeInterval is the interval of pings and of loopback probes. After three without a response the node is
	// unhealthy, and connects again if the server did not respond to pings either. 0: 1 second.
	ProbeInterval time.Duration
	// InFlight bounds the requests in flight; further ones wait. 0: 4096.
	InFlight int
	// PendingMessages and PendingBytes bound the queue between the connection and the handler. Further messages are
	// dropped, and Handler.Interrupted is called. 0: 16384 and 64 MiB.
	PendingMessages, PendingBytes int

	// Logger receives events for the operator, never a secret or a payload. nil: nothing is logged.
	Logger *slog.Logger

	// OptionName returns how the operator sets an option, such as --broker-tls-ca for TLS.RootCAs, for errors that
	// name a remedy. The options are URL, Token, CredentialsFile, NKeyFile, TLS.RootCAs, TLS.Certificates and MaxBytes.
	// nil, or a result of "": errors name the option itself.
	OptionName func(option string) string
}

func (o Options) withDefaults() Options {
	o.Name = cmp.Or(o.Name, "shoal")
	o.Stream = cmp.Or(o.Stream, "SHOAL")
	o.Messages = cmp.Or(o.Messages, 64)
	o.TTL = cmp.Or(o.TTL, 10*time.Minute)
	o.Replicas = cmp.Or(o.Replicas, 1)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 2*time.Second)
	o.CallTimeout = cmp.Or(o.CallTimeout, 5*time.Second)
	o.ProbeInterval = cmp.Or(o.ProbeInterval, time.Second)
	o.InFlight = cmp.Or(o.InFlight, 4096)
	o.PendingMessages = cmp.Or(o.PendingMessages, 16384)
	o.PendingBytes = cmp.Or(o.PendingBytes, 64<<20)
	if limited, ok := o.Server.(interface{ MemoryLimit() int64 }); ok && !o.File && o.MaxBytes == 0 {
		o.MaxBytes = limited.MemoryLimit() / 4 * 3
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return o
}

// Bounds of options. The server refuses a shorter TTL and more replicas.
const (
	maxMessages = 1 << 16
	minTTL      = 100 * time.Millisecond
	maxReplicas = 5
	maxWaiting  = 1 << 20
	maxPending  = 1 << 30 // bytes
)

// validate returns all errors at once. None holds a secret.
func (o Options) validate() error {
	var all []error
	refuse := func(field string, value any, want string) {
		all = append(all, fmt.Errorf("natsbroker: Options.%s is %v, want %s", field, value, want))
	}
	between := func(field string, value, low, high int) {
		if value < low || value > high {
			refuse(field, value, fmt.Sprintf("%d to %d", low, high))
		}
	}
	if (o.URL == "") == (o.Server == nil) {
		all = append(all, errors.New("natsbroker: Options need one of URL and Server"))
	}
	for i, problem := range badURLs(o.URL) {
		if problem != "" {
			refuse("URL", fmt.Sprintf("bad at server %d (%s)", i+1, problem), "nats://host:port or tls://host:port")
		}
	}
	if o.NKeyFile != "" {
		if _, err := nats.NkeyOptionFromSeed(o.NKeyFile); err != nil {
			refuse("NKeyFile", o.NKeyFile, "a readable file with the seed of an nkey")
		}
	}
	if o.NKeyFile != "" && o.CredentialsFile != "" {
		all = append(all, errors.New("natsbroker: Options has CredentialsFile and NKeyFile, want one of them"))
	}
	if o.CredentialsFile != "" {
		if err := checkCredentials(o.CredentialsFile); err != nil {
			refuse("CredentialsFile", o.CredentialsFile, fmt.Sprintf("a .creds file with a user's JWT and seed, but %v", err))
		}
	}
	if o.Stream == "" || strings.ContainsFunc(o.Stream, badInStream) || len(o.Stream) > 64 {
		refuse("Stream", fmt.Sprintf("%.80q", o.Stream), "1 to 64 letters, digits, - and _")
	}
	between("Messages", o.Messages, 1, maxMessages)
	if o.TTL < minTTL {
		refuse("TTL", o.TTL, fmt.Sprintf("at least %v", minTTL))
	}
	between("Replicas", o.Replicas, 1, maxReplicas)
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"ConnectTimeout", o.ConnectTimeout}, {"CallTimeout", o.CallTimeout}, {"ProbeInterval", o.ProbeInterval}} {
		if d.value < time.Millisecond {
			refuse(d.field, d.value, "at least 1ms")
		}
	}
	between("InFlight", o.InFlight, 1, maxWaiting)
	between("PendingMessages", o.PendingMessages, 1, maxWaiting)
	between("PendingBytes", o.PendingBytes, 1, maxPending)
	return errors.Join(all...)
}

func badInStream(r rune) bool {
	const good = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return !strings.ContainsRune(good, r)
}

// badURLs returns the problem with each server of a list, "" if none, without repeating a possible password.
func badURLs(list string) []string {
	if list == "" {
		return nil
	}
	servers := strings.Split(list, ",")
	problems := make([]string, len(servers))
	for i, one := range servers {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case err != nil:
			problems[i] = "not a URL"
		case !slices.Contains([]string{"nats", "tls"}, u.Scheme):
			problems[i] = "unsupported scheme"
		case u.Hostname() == "":
			problems[i] = "no host"
		case !isPort(u.Port()):
			problems[i] = "port out of range"
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
			problems[i] = "path or query after the port"
		}
	}
	return problems
}

// isPort reports whether text is a port, or empty, which stands for the usual one.
func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return text == "" || err == nil && n > 0
}

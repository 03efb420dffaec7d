package natsbroker

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Options say where the NATS server is and what it keeps. The zero value of everything but the server is the
// documented default.
type Options struct {
	// URL is where to connect: nats://host:port or tls://host:port, with user:password@ or token@ before the
	// host if need be; several servers of a cluster are separated by commas. Others that these tell of are used too when
	// none of them is reached, which a cluster behind one address prevents by its no_advertise.
	URL string
	// Server is a NATS server within this process, which is connected to without a socket, instead of URL.
	Server nats.InProcessConnProvider
	// Token and CredentialsFile (a .creds file) are other ways to say who connects.
	Token           string
	CredentialsFile string
	// TLS is for connections that need more than a tls:// URL, an authority of their own for example.
	TLS *tls.Config
	// Name is this connection's name in what the server tells its operators. "": shoal.
	Name string

	// Stream is the name of the JetStream stream. "": SHOAL. It is made if there is none.
	Stream string
	// Messages and TTL are how many messages of a channel are kept (0: 64), and how long (0: 10 minutes).
	// MaxBytes bounds all of them together; 0: no bound but the server's.
	Messages int
	TTL      time.Duration
	MaxBytes int64
	// Replicas is on how many servers of a cluster each message is kept. 0: 1.
	Replicas int
	// File keeps messages in files, where a restart of all servers loses none, instead of in memory.
	File bool

	// ConnectTimeout bounds one attempt to connect. 0: 2 seconds.
	ConnectTimeout time.Duration
	// CallTimeout bounds a call whose context has no deadline. 0: 5 seconds.
	CallTimeout time.Duration
	// ProbeInterval is how often a node looks whether the server answers, and whether it hears what it sends
	// itself. After three in vain it says so, and connects anew if there was no answer. 0: 1 second.
	ProbeInterval time.Duration
	// InFlight is how many calls may wait for the server at once; more wait for their turn. 0: 4096.
	InFlight int
	// PendingMessages is how many messages may wait between the connection and the handler. What comes on top
	// is lost, and Handler.Interrupted told. 0: 16384.
	PendingMessages int

	// Logger gets what an operator should know, never a secret or a payload. nil: nothing is logged.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	set(&o.Name, "shoal")
	set(&o.Stream, "SHOAL")
	set(&o.Messages, 64)
	set(&o.TTL, 10*time.Minute)
	set(&o.Replicas, 1)
	set(&o.ConnectTimeout, 2*time.Second)
	set(&o.CallTimeout, 5*time.Second)
	set(&o.ProbeInterval, time.Second)
	set(&o.InFlight, 4096)
	set(&o.PendingMessages, 16384)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func set[T comparable](field *T, standard T) {
	var zero T
	if *field == zero {
		*field = standard
	}
}

// Bounds of options. The server itself refuses a shorter TTL and more replicas.
const (
	maxMessages = 1 << 16
	minTTL      = 100 * time.Millisecond
	maxReplicas = 5
	maxWaiting  = 1 << 20
)

// validate returns every complaint at once. None of them holds a secret.
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
	for i, complaint := range badURLs(o.URL) {
		if complaint != "" {
			refuse("URL", fmt.Sprintf("bad at server %d (%s)", i+1, complaint), "nats://host:port or tls://host:port")
		}
	}
	if o.CredentialsFile != "" {
		if _, err := os.Stat(o.CredentialsFile); err != nil {
			refuse("CredentialsFile", o.CredentialsFile, "a file that can be read")
		}
	}
	if o.Stream == "" || strings.ContainsFunc(o.Stream, badInStream) || len(o.Stream) > 64 {
		refuse("Stream", fmt.Sprintf("%.80q", o.Stream), "1 to 64 letters, digits, - and _")
	}
	between("Messages", o.Messages, 1, maxMessages)
	if o.TTL < minTTL {
		refuse("TTL", o.TTL, fmt.Sprintf("at least %v", minTTL))
	}
	if o.MaxBytes < 0 {
		refuse("MaxBytes", o.MaxBytes, "0 for no bound, or more")
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
	return errors.Join(all...)
}

func badInStream(r rune) bool {
	const good = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return !strings.ContainsRune(good, r)
}

// badURLs says of each of several servers what is wrong, "" if nothing, without repeating what might be a password.
func badURLs(list string) []string {
	if list == "" {
		return nil
	}
	servers := strings.Split(list, ",")
	complaints := make([]string, len(servers))
	for i, one := range servers {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case err != nil:
			complaints[i] = "it is no URL"
		case !slices.Contains([]string{"nats", "tls"}, u.Scheme):
			complaints[i] = "its scheme is another"
		case u.Hostname() == "":
			complaints[i] = "it has no host"
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
			complaints[i] = "something follows the port"
		}
	}
	return complaints
}

package redisbroker

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
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
	// RootCAs returns the authorities of the servers' certificates for a new connection, in place of those of TLS. It
	// requires a URL that begins with rediss. nil: those of TLS.
	RootCAs func() *x509.CertPool
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

	// OptionName returns how the operator sets an option, such as --broker-tls-ca for TLS.RootCAs, for errors that
	// name a remedy. The options are URL, TLS.RootCAs and TLS.Certificates.
	// nil, or a result of "": errors name the option itself.
	OptionName func(option string) string
}

// The limits of options. Redis keeps up to 2^63 entries; a script that reads many of them blocks it.
const (
	maxMessages = 10_000
	minTTL      = 10 * time.Millisecond
	minInterval = 10 * time.Millisecond
)

// withDefaults returns the options with the defaults filled in.
func (o Options) withDefaults() Options {
	o.Messages = cmp.Or(o.Messages, 64)
	o.TTL = cmp.Or(o.TTL, 10*time.Minute)
	o.ProbeInterval = cmp.Or(o.ProbeInterval, time.Second)
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.MaxPayload = cmp.Or(o.MaxPayload, 1<<20)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
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
	complain(o.RootCAs == nil || to.tls != nil || err != nil, "RootCAs is set, but the URL does not begin with rediss")
	complain(o.Messages >= 1 && o.Messages <= maxMessages,
		"Messages is %d, must be from 1 to %d", o.Messages, maxMessages)
	complain(o.TTL >= minTTL, "TTL is %v, must be at least %v", o.TTL, minTTL)
	complain(o.ProbeInterval >= minInterval, "ProbeInterval is %v, must be at least %v", o.ProbeInterval, minInterval)
	complain(o.Timeout > 0, "Timeout is %v, must be positive", o.Timeout)
	complain(o.MaxPayload > 0, "MaxPayload is %d, must be positive", o.MaxPayload)
	return to, errors.Join(complaints...)
}

// mode is how the servers of a target stand together.
type mode int

const (
	single mode = iota
	sentinel
	cluster
)

// target is a parsed URL. It is immutable.
type target struct {
	mode   mode
	addrs  []string // of the server, the sentinels, or some nodes of the cluster
	master string   // its name at the sentinels
	db     int
	tls    *tls.Config
	login
	sentinelLogin
}

type login struct{ user, password string }

type sentinelLogin struct{ sentinelUser, sentinelPassword string }

// parseURL reads a URL of Options. Its error never holds a part of the URL that could be a password.
func parseURL(raw string) (to target, err error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return to, errors.New("redisbroker: the URL must begin with redis://, redis+sentinel:// or redis+cluster:// " +
			"(or with rediss for TLS)")
	}
	base, kind, _ := strings.Cut(scheme, "+")
	switch base {
	case "redis":
	case "rediss":
		to.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	default:
		return to, fmt.Errorf("redisbroker: the URL begins with %.20q, must be redis:// or rediss://", scheme)
	}
	modes := map[string]mode{"": single, "sentinel": sentinel, "cluster": cluster}
	if to.mode, ok = modes[kind]; !ok {
		return to, fmt.Errorf("redisbroker: the URL begins with %.20q, and after the + must come sentinel or cluster", scheme)
	}
	return to, to.parse(rest)
}

// parse reads the part of a URL after its scheme.
func (to *target) parse(rest string) error {
	rest, query, _ := strings.Cut(rest, "?")
	rest, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		info, err := url.Parse("redis://" + rest[:at] + "@host")
		if err != nil {
			return errors.New("redisbroker: the URL's user and password cannot be read: percent-encode what is special in them")
		}
		to.user = info.User.Username()
		to.password, _ = info.User.Password()
		rest = rest[at+1:]
	}
	for host := range strings.SplitSeq(rest, ",") {
		addr, err := address(host, to.mode)
		if err != nil {
			return err
		}
		to.addrs = append(to.addrs, addr)
	}
	if to.mode == single && len(to.addrs) > 1 {
		return errors.New("redisbroker: the URL names several servers: say redis+cluster:// or redis+sentinel://")
	}
	return errors.Join(to.parsePath(path), to.parseQuery(query))
}

// address completes an address with the port that is usual.
func address(host string, mode mode) (string, error) {
	port := "6379"
	if mode == sentinel {
		port = "26379"
	}
	// The parser wants brackets around an IPv6 address, and takes them off.
	parsed, err := url.Parse("redis://" + host)
	if err != nil || parsed.Hostname() == "" || parsed.Host != host {
		return "", errors.New("redisbroker: the URL must name each server as host or host:port, separated by commas")
	}
	if parsed.Port() != "" {
		port = parsed.Port()
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", errors.New("redisbroker: the URL has a port that is not a number from 1 to 65535")
		}
	}
	return net.JoinHostPort(parsed.Hostname(), port), nil
}

// parsePath reads the name of the master and the number of the database.
func (to *target) parsePath(path string) error {
	db := strings.TrimSuffix(path, "/")
	if to.mode == sentinel {
		name, number, _ := strings.Cut(db, "/")
		var err error
		if to.master, err = url.PathUnescape(name); err != nil || to.master == "" {
			return errors.New("redisbroker: the URL must name the sentinels' master: redis+sentinel://host:port/master")
		}
		db = number
	}
	if db == "" {
		return nil
	}
	number, err := strconv.Atoi(db)
	if err != nil || number < 0 {
		return fmt.Errorf("redisbroker: the URL's database is %.20q, must be a number from 0", db)
	}
	if to.mode == cluster && number != 0 {
		return fmt.Errorf("redisbroker: the URL's database is %d, but a cluster has only 0", number)
	}
	to.db = number
	return nil
}

// parseQuery reads the options after the question mark.
func (to *target) parseQuery(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("redisbroker: what follows the URL's question mark must be of the form name=value&name=value")
	}
	var complaints []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values.Get(name)
		switch {
		case name == "sentinel_user" && to.mode == sentinel:
			to.sentinelUser = value
		case name == "sentinel_password" && to.mode == sentinel:
			to.sentinelPassword = value
		case name == "insecure_skip_verify" && to.tls != nil:
			skip, err := strconv.ParseBool(value)
			if err != nil {
				complaints = append(complaints, errors.New("redisbroker: the URL's insecure_skip_verify must be true or false"))
			}
			to.tls.InsecureSkipVerify = skip
		default:
			complaints = append(complaints, fmt.Errorf(
				"redisbroker: the URL's option %.40q means nothing with this kind of URL: "+
					"sentinel_user and sentinel_password go with sentinels, insecure_skip_verify with TLS", name))
		}
	}
	return errors.Join(complaints...)
}

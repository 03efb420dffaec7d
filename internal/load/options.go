package load

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

const (
	// maxMessageBytes limits a message of the server. A larger one ends the connection.
	maxMessageBytes = 16 << 20
	// maxConnections limits a fleet. One machine does not have that many ports.
	maxConnections = 1 << 22
	// maxPollers limits the pollers of a fleet.
	maxPollers = 256
	// minDialRate keeps the time of the last dial within the range of time.Duration.
	minDialRate = 0.001
	// defaultDialParallel is the default of Options.DialParallel.
	defaultDialParallel = 256
)

// Dialect is the application protocol of a server under test. Its functions are called from the goroutines of the
// fleet, concurrently if there are several pollers. They must not block or retain a payload.
type Dialect struct {
	// Path is the path of the WebSocket endpoint. "": /
	Path string
	// Subprotocol is requested, and the server must accept it. "": none.
	Subprotocol string
	// Hello returns the text messages that client i sends after the upgrade. nil: none.
	Hello func(i int) [][]byte
	// Ready reports whether a message confirms that the client is subscribed. It is called for each message until it
	// returns true. nil: a client is ready once it has sent its hello messages.
	Ready func(payload []byte) bool
	// Refused returns the reason if a message before Ready refuses the client, and "" otherwise. nil: no message does.
	Refused func(payload []byte) string
	// Data returns the number of application messages in a WebSocket message after Ready. nil: 1, but 0 for
	// {"action":"ping"}.
	Data func(payload []byte) int
	// Pong returns the answer to a message for which Data returned 0, or nil for no answer. nil: no answers.
	Pong func(payload []byte) []byte
}

// Beginning returns a Dialect.Data that returns 1 for messages with a prefix. It compares the same few bytes of each
// message, so it costs little.
func Beginning(with string) func(payload []byte) int {
	return func(payload []byte) int {
		if len(payload) >= len(with) && string(payload[:len(with)]) == with {
			return 1
		}
		return 0
	}
}

// Options configures a Fleet.
type Options struct {
	// Addr is the server's host:port.
	Addr string
	// TLS is the configuration of connections over TLS, which use a goroutine per client. nil: no TLS.
	TLS *tls.Config
	// Goroutines gives each client a goroutine, as on systems other than Linux, instead of sharing Pollers.
	Goroutines bool
	// Connections is the number of clients.
	Connections int
	// Dialect is the application protocol of the server.
	Dialect Dialect
	// Pollers is the number of reading goroutines. 0: 1. It has no effect with a goroutine per client.
	Pollers int
	// DialRate is the number of clients dialled per second. 0: as many as DialParallel allows.
	DialRate float64
	// DialParallel limits the clients that have been dialled and are not ready. 0: 256.
	DialParallel int
	// Stalled is the number of clients that stop reading once they are ready: the first ones.
	Stalled int
	// LocalAddrs are IP addresses to connect from, in turn: each has about 28,000 ports. None: the system chooses.
	LocalAddrs []string
	// Sent returns the planned send time of a counted message, in nanoseconds of Unix time. Latency is measured from that
	// time. nil: latency is not measured.
	Sent func(payload []byte) (unixNano int64, ok bool)
	// OnReady is called for each client that becomes ready, from the goroutines of the fleet and before Open returns.
	// nil: no call.
	OnReady func()
}

func (o Options) withDefaults() Options {
	if o.Dialect.Path == "" {
		o.Dialect.Path = "/"
	}
	o.Pollers = cmp.Or(o.Pollers, 1)
	o.DialParallel = cmp.Or(o.DialParallel, defaultDialParallel)
	return o
}

func (o Options) validate() error {
	var all []error
	refuse := func(field string, value any, want string) {
		all = append(all, fmt.Errorf("load: Options.%s is %v, want %s", field, value, want))
	}
	if _, port, err := net.SplitHostPort(o.Addr); err != nil || port == "" {
		refuse("Addr", fmt.Sprintf("%q", o.Addr), "host:port")
	}
	if o.Connections < 1 || o.Connections > maxConnections {
		refuse("Connections", o.Connections, fmt.Sprintf("1 to %d", maxConnections))
	}
	if o.Pollers < 1 || o.Pollers > maxPollers {
		refuse("Pollers", o.Pollers, fmt.Sprintf("1 to %d", maxPollers))
	}
	if o.DialRate != 0 && !(o.DialRate >= minDialRate) { // also rejects NaN
		refuse("DialRate", o.DialRate, fmt.Sprintf("0 (as fast as possible), or at least %v", minDialRate))
	}
	if o.DialParallel < 1 {
		refuse("DialParallel", o.DialParallel, "at least 1")
	}
	if o.Stalled < 0 || o.Stalled > o.Connections {
		refuse("Stalled", o.Stalled, "0 to Connections")
	}
	if !isHeaderText(o.Dialect.Path) || !strings.HasPrefix(o.Dialect.Path, "/") {
		refuse("Dialect.Path", fmt.Sprintf("%q", o.Dialect.Path), "a path that begins with a slash")
	}
	if !isHeaderText(o.Dialect.Subprotocol) {
		refuse("Dialect.Subprotocol", fmt.Sprintf("%q", o.Dialect.Subprotocol), "the name of a subprotocol")
	}
	for _, address := range o.LocalAddrs {
		if _, err := netip.ParseAddr(address); err != nil {
			refuse("LocalAddrs", fmt.Sprintf("%q", address), "IP addresses")
		}
	}
	return errors.Join(all...)
}

// isHeaderText reports whether a text contains only visible ASCII characters, so that it can be part of a request line.
func isHeaderText(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

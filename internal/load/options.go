package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

const (
	// maxMessageBytes bounds a message of the server: whatever is larger ends the connection.
	maxMessageBytes = 16 << 20
	// maxConnections bounds a fleet, far above what one machine has ports for.
	maxConnections = 1 << 22
	// maxPollers bounds the pollers of a fleet.
	maxPollers = 256
	// minDialRate keeps the time of the last dial within the bounds of a duration.
	minDialRate = 0.001
	// standardParallel is how many clients are under way to being ready at a time, unless told otherwise.
	standardParallel = 256
)

// Dialect is how a client of a server under test introduces itself. Its functions are called on the
// goroutines of the fleet, several at a time if there are several pollers; they must not block, and not keep
// a payload.
type Dialect struct {
	// Path is where the WebSocket is. "": /
	Path string
	// Subprotocol is asked for, and required. "": none.
	Subprotocol string
	// Hello returns the text messages that client i sends after the upgrade, in order. nil: none.
	Hello func(i int) [][]byte
	// Ready reports whether a message says that the client is subscribed. It is called for each message
	// until it says so. nil: a client is ready once it has said hello.
	Ready func(payload []byte) bool
	// Refused returns why a message before Ready says that the client will never be, or "". nil: none does.
	Refused func(payload []byte) string
	// Data returns for how many a WebSocket message after Ready counts, 0 for one that does not. nil: each counts
	// for one that is not {"action":"ping"}.
	Data func(payload []byte) int
	// Pong returns the answer to a message that does not count, or nil for no answer. nil: nothing is answered.
	Pong func(payload []byte) []byte
}

// Beginning returns a Dialect.Data for which a message counts if it begins so: the same few bytes of each are
// looked at.
func Beginning(with string) func(payload []byte) int {
	return func(payload []byte) int {
		if len(payload) >= len(with) && string(payload[:len(with)]) == with {
			return 1
		}
		return 0
	}
}

// Options configure a Fleet.
type Options struct {
	// Addr is the server's host:port.
	Addr string
	// TLS is the configuration of connections over TLS, where each client takes a goroutine. nil: no TLS.
	TLS *tls.Config
	// Connections is the number of clients.
	Connections int
	// Dialect is how they introduce themselves.
	Dialect Dialect
	// Pollers is the number of goroutines that read. 0: 1. Of no effect where each client takes a goroutine.
	Pollers int
	// DialRate is how many clients begin to connect in a second. 0: as many as DialParallel allows.
	DialRate float64
	// DialParallel is how many clients may be under way to being ready at a time. 0: 256.
	DialParallel int
	// Stalled is how many of the clients, the first ones, read nothing more once they are ready.
	Stalled int
	// LocalAddrs are IP addresses to connect from, in turn: one has about 28,000 ports. None: the system's choice.
	LocalAddrs []string
	// Sent reads out of a message that counts when it was meant to be sent, in nanoseconds of Unix time, which
	// latency is measured from. nil: no latency is measured.
	Sent func(payload []byte) (unixNano int64, ok bool)
	// OnReady is called for each client that is ready, on the goroutines of the fleet and before Open returns.
	// nil: it is not.
	OnReady func()
}

func (o Options) withDefaults() Options {
	if o.Dialect.Path == "" {
		o.Dialect.Path = "/"
	}
	if o.Pollers == 0 {
		o.Pollers = 1
	}
	if o.DialParallel == 0 {
		o.DialParallel = standardParallel
	}
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
	if o.DialRate != 0 && !(o.DialRate >= minDialRate) { // so that NaN is refused, too
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

// isHeaderText reports whether a text can stand in the request of an upgrade without ending a word or a line.
func isHeaderText(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// Package systems holds the servers that are compared: this project's, its peers and the yardsticks, each an adapter that
// names its settings and the reasons for them.
package systems

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/internal/load"
)

// System is a server under test, inside its own process. Publish is called from one goroutine at a time, the
// other methods from any.
type System interface {
	// Handler upgrades at the path of the system's dialect.
	Handler() http.Handler
	// Publish sends messages to the subscribers of their channels, in this order. It returns when the system
	// has queued them; most systems write them later.
	Publish(messages []message.Message) error
	// Subscriptions is how many clients are subscribed.
	Subscriptions() int
	// Close ends the system and waits for its goroutines. Its clients must have gone.
	Close() error
}

// Secured is a System with a listener for TLS of its own.
type Secured interface {
	// TLSListener returns a listener whose connections are those of another one over TLS.
	TLSListener(ln net.Listener, config *tls.Config) net.Listener
}

// ServerName is the name in the certificate of every server.
const ServerName = "compare.invalid"

// ClientTLS returns the configuration of clients: they share their session tickets, as one that has been here before
// does, and do not check the certificate, which would be the clients' work.
func ClientTLS() *tls.Config {
	return &tls.Config{
		ServerName: ServerName, MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(0),
		InsecureSkipVerify: true, //nolint:gosec // as above
	}
}

// Program is a System that is a program of its own, which listens and uses the machine by itself.
type Program interface {
	// Start runs the executable of that path on a free port of the host. It returns the address and the process id once
	// the program answers requests. certificate and key are the names of PEM files, "" without TLS.
	Start(path, host, certificate, key string) (addr string, pid int, err error)
}

// Kind is the part that a system has in the comparison.
type Kind string

// The kinds of systems.
const (
	Own       Kind = "own"       // this project
	Peer      Kind = "peer"      // a library or server that others use
	Yardstick Kind = "yardstick" // the limit of the machine
)

// OwnName is this project's system.
const OwnName = "shoal"

// Entry describes a system.
type Entry struct {
	Name string
	Kind Kind
	// Module is the path of the module whose version counts.
	Module string
	// About describes in one line how the system handles a message.
	About string
	// Part is in which scenarios the system takes part.
	Part Part
	// New starts the system.
	New func() (System, error)
	// Dialect is the protocol of its clients.
	Dialect func(Audience) load.Dialect
	// Publishing returns the path and the body of a request that publishes messages through the HTTP API. nil: the system
	// has none.
	Publishing func(messages []message.Message) (path string, body []byte)
	// Command is the name of the program that the system is, "" for a system in this program.
	Command string
}

// Part says in which scenarios a system takes part.
type Part int

// The parts. S6 is the storm of clients that connect.
const (
	Everywhere Part = iota
	StormOnly       // in S6 alone
	NoStorm         // in all but S6
	DirectOnly      // in S11 alone
	IntakeOnly      // in S12 alone
)

// Audience assigns clients to channels: client i subscribes to channel i modulo Channels.
type Audience struct {
	Channels int
	// Storm: the clients come back all at once, and resume where the system knows how to.
	Storm bool
}

func (a Audience) channelOf(client int) string { return message.Channel(client % max(a.Channels, 1)) }

// The modules of several systems.
const (
	gwsModule        = "github.com/lxzan/gws"
	centrifugeModule = "github.com/centrifugal/centrifuge"
)

// with returns a function that starts a system with a setting.
func with[S any](start func(S) (System, error), setting S) func() (System, error) {
	return func() (System, error) { return start(setting) }
}

// upgraded is the dialect of clients that are ready once they are upgraded.
func upgraded(Audience) load.Dialect { return load.Dialect{Path: path} }

// All returns every system, in the order in which tables show them.
func All() []Entry { return slices.Clone(table) }

var table = []Entry{
	{
		Name: OwnName, Kind: Own, Module: "github.com/shoal-go/shoal", About: "this project, options at their defaults, manager.Publish in the process",
		New: func() (System, error) { return NewShoal(nil) }, Dialect: shoalDialect, Publishing: shoalPublishing,
	},
	{
		Name: "write-loop", Kind: Yardstick, Module: gwsModule, Part: NoStorm, New: with(newWriteLoop, false), Dialect: plain,
		About: "write(2) of the ready frame to each socket, on as many goroutines as cores",
	},
	{
		Name: "joined-write", Kind: Yardstick, Module: gwsModule, Part: NoStorm, New: with(newWriteLoop, true), Dialect: plain,
		About: "the write loop with a burst's frames joined into one write(2) per socket",
	},
	{
		Name: "gws-upgrade", Kind: Yardstick, Module: gwsModule, Part: StormOnly, New: with(newSilent, upgradeOnly), Dialect: upgraded,
		About: "gws that upgrades and no more: no authentication, no subscription",
	},
	{
		Name: "gws", Kind: Peer, Module: gwsModule, New: with(newGWS, broadcastGWS), Dialect: plain,
		About: "lxzan/gws, Broadcaster (WriteAsync for one receiver)",
	},
	{
		Name: "gws-direct", Kind: Peer, Module: gwsModule, Part: DirectOnly, New: with(newGWS, writeGWS), Dialect: plain,
		About: "lxzan/gws, WriteMessage to each connection by the goroutine that publishes",
	},
	{
		Name: "melody", Kind: Peer, Module: "github.com/olahol/melody", New: newMelody, Dialect: plain,
		About: "olahol/melody, Write to each session of the channel, pooled write buffers",
	},
	{
		Name: "gorilla", Kind: Peer, Module: "github.com/gorilla/websocket", New: newGorilla, Dialect: plain,
		About: "gorilla/websocket, PreparedMessage (plain for one receiver), a writing goroutine per connection",
	},
	{
		Name: "centrifuge", Kind: Peer, Module: centrifugeModule, New: with(newCentrifuge, unbatched), Dialect: centrifugeDialect,
		About: "centrifugal/centrifuge, memory broker, no write delay",
	},
	{
		Name: "centrifuge-batched", Kind: Peer, Module: centrifugeModule, New: with(newCentrifuge, batched), Dialect: centrifugeDialect,
		About: "centrifugal/centrifuge, memory broker, WriteDelay 100 ms, no limit to messages in a frame",
	},
	{
		Name: "coder", Kind: Peer, Module: "github.com/coder/websocket", New: newCoder, Dialect: plain,
		About: "coder/websocket, a channel and a writing goroutine per connection",
	},
	{
		Name: "centrifugo", Kind: Peer, Module: CentrifugoModule, Command: "centrifugo", New: with(newCentrifugo, false),
		Dialect: centrifugoDialect, Publishing: centrifugoPublishing,
		About: "a whole Centrifugo, memory engine, published to through its HTTP API",
	},
	{
		Name: "centrifugo-history", Kind: Peer, Module: CentrifugoModule, Command: "centrifugo", New: with(newCentrifugo, true),
		Part: IntakeOnly, Dialect: centrifugoDialect, Publishing: centrifugoPublishing,
		About: "the same with 64 messages of history for each channel",
	},
	{
		Name: "net-http", Kind: Yardstick, Module: "net/http", Part: IntakeOnly, New: with(newSilent, emptyHandler), Dialect: upgraded,
		Publishing: shoalPublishing, About: "a handler of net/http that reads the body and does nothing",
	},
}

// Find returns the system of a name. The error lists the names that there are.
func Find(name string) (Entry, error) {
	at := slices.IndexFunc(table, func(e Entry) bool { return e.Name == name })
	if at < 0 {
		return Entry{}, fmt.Errorf("systems: %q is unknown, want one of %s", name, strings.Join(Names(), ", "))
	}
	return table[at], nil
}

// Names lists the systems' names.
func Names() []string {
	var names []string
	for _, e := range table {
		names = append(names, e.Name)
	}
	return names
}

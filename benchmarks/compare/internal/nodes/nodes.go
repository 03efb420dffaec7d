// Package nodes runs a node, a manager with a broker, in a process of its own: one that publishes, or one with connections
// that count and time messages. Only the broker is between the two.
package nodes

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/internal/load"
	"github.com/shoal-go/shoal/manager"
)

// The brokers.
const (
	Memory   = "memory"        // both nodes in one process
	NATS     = "nats"          // a server in a process of its own
	Embedded = "nats-embedded" // a server in each node's process, which form a cluster
	Redis    = "redis"         // a server in a process of its own
)

// Brokers lists them.
func Brokers() []string { return []string{Memory, NATS, Embedded, Redis} }

// MaxPublishers is how many there are at most on a node.
const MaxPublishers = 4096

// Options describe a node: the broker, where its server is, and of an embedded one where it and the others of its cluster listen
// for each other.
type Options struct {
	Broker, URL, Addr string
	Routes            []string
}

// Published tells when publishing began, in nanoseconds of Unix time, how many messages were published, and by how much the
// latest one of a rate was late.
type Published struct {
	Began, Late int64
	Messages    uint64
}

// Wait waits for a total of messages, at most for a time.
type Wait struct {
	Total uint64
	For   time.Duration
}

// State is the state of a node: how many messages its connections have received, when the latest one arrived, how many were
// not the next one of their publisher and upload, how often an upload was read from the broker's history, and the times of
// the messages.
type State struct {
	Received, Disorder, Recovered uint64
	Last                          int64
	Latency                       load.Percentiles
}

// Node is the service of a process with one node, or where the broker is memory, with two. Start is called first.
type Node struct {
	worker.Closers
	from, to *manager.Manager // that publish and receive; one and the same but for Memory
	sinks    []*sink
	times    *load.Times
	counts   map[int][]uint64 // messages of each publisher, by upload
}

// Start starts the node.
func (n *Node) Start(o Options, _ *worker.None) (err error) {
	n.times, n.counts = load.NewTimes(), map[int][]uint64{}
	var b, second broker.Broker
	switch o.Broker {
	case Memory:
		hub := broker.NewMemory(broker.MemoryOptions{})
		b, second = hub.Node(), hub.Node()
	case Embedded:
		server, err := embedded.Start(embedded.Options{ClusterAddr: o.Addr, ClusterRoutes: o.Routes})
		if err != nil {
			return err
		}
		n.Closers = append(n.Closers, server.Close)
		b, err = natsbroker.New(natsbroker.Options{Server: server})
		if err != nil {
			return err
		}
	default:
		if b, err = Connect(o.URL); err != nil {
			return err
		}
	}
	if n.from, err = n.manage(b); err != nil || second == nil {
		n.to = n.from
		return err
	}
	n.to, err = n.manage(second)
	return err
}

// Connect returns a broker of NATS or Redis, whose server has the URL.
func Connect(url string) (broker.HistoryBroker, error) {
	switch scheme, _, _ := strings.Cut(url, ":"); scheme {
	case "nats":
		return natsbroker.New(natsbroker.Options{URL: url})
	case "redis":
		return redisbroker.New(redisbroker.Options{URL: url})
	}
	return nil, fmt.Errorf("nodes: there is no broker at %q, want nats:// or redis://", url)
}

// manage returns a manager on top of a broker, which is closed before everything that was opened earlier.
func (n *Node) manage(b broker.Broker) (*manager.Manager, error) {
	m, err := manager.New(manager.Options{Broker: b})
	if err == nil {
		n.Closers = append(n.Closers, func() error { return m.Close(context.Background()) })
	}
	return m, err
}

// Broker is the service of a process with the server of a broker.
type Broker struct{ worker.Closers }

// Start runs a server of NATS, in this process, or of Redis, as a program and without persistence, on a free port of the loopback
// interface. The address in its answer is a URL.
func (b *Broker) Start(name string, a *worker.Started) error {
	switch name {
	case NATS:
		server, err := embedded.Start(embedded.Options{Addr: "127.0.0.1:0"})
		if err != nil {
			return err
		}
		b.Closers = append(b.Closers, server.Close)
		a.Addr = "nats://" + server.Addr().String()
		return nil
	case Redis:
		addr, err := worker.FreeAddress("127.0.0.1")
		if err != nil {
			return err
		}
		host, port, _ := net.SplitHostPort(addr)
		command := exec.Command("redis-server", "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--daemonize", "no")
		end, err := worker.StartProgram(command, addr)
		if err != nil {
			return err
		}
		b.Closers = append(b.Closers, end)
		a.Addr, a.PID = "redis://"+addr, command.Process.Pid
		return nil
	}
	return fmt.Errorf("nodes: %q has no server of its own", name)
}

// Package nodes runs a node, a manager with a broker, in a process of its own: one that publishes, or one with connections
// that count and time messages. Only the broker is between the two.
package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/internal/load"
	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
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

// Bounds of loads.
const (
	MaxUploads    = 100_000
	MaxPublishers = 4096
)

// Options are the command of a node.
type Options struct {
	Broker string   `required:"" help:"Name of the broker."`
	URL    string   `help:"Where the server of NATS or Redis is."`
	Addr   string   `help:"Where an embedded server listens for the others of its cluster."`
	Routes []string `name:"route" help:"Where the servers of the cluster listen."`
}

// Load describes messages: Publishers publish while For lasts, each one after the other, or Rate a second in turn.
type Load struct {
	results.Params
	For time.Duration
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

// node is the service of the process: one node, or where the broker is memory, two.
type node struct {
	worker.Process
	ctx      context.Context  // the life of the process
	from, to *manager.Manager // that publish and receive; one and the same but for Memory
	closers  worker.Closers
	sinks    []*sink
	times    *load.Times
	counts   map[int][]uint64 // messages of each publisher, by upload
}

// Run runs a node and answers calls until in ends. Then it ends the node.
func (o Options) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	n, err := open(ctx, o)
	if err == nil {
		err = worker.Serve(in, out, n)
	}
	return errors.Join(err, n.Stop(), n.closers.Close())
}

// open returns a node. It is to be closed even if there is an error.
func open(ctx context.Context, o Options) (n *node, err error) {
	n = &node{ctx: ctx, times: load.NewTimes(), counts: map[int][]uint64{}}
	var b, second broker.Broker
	switch o.Broker {
	case Memory:
		hub := broker.NewMemory(broker.MemoryOptions{})
		b, second = hub.Node(), hub.Node()
	case Embedded:
		server, err := embedded.Start(embedded.Options{ClusterAddr: o.Addr, ClusterRoutes: o.Routes})
		if err != nil {
			return n, err
		}
		n.closers = append(n.closers, server.Close)
		b, err = natsbroker.New(natsbroker.Options{Server: server})
		if err != nil {
			return n, err
		}
	default:
		if b, err = Connect(o.Broker, o.URL); err != nil {
			return n, err
		}
	}
	if n.from, err = n.manage(b); err != nil || second == nil {
		n.to = n.from
		return n, err
	}
	n.to, err = n.manage(second)
	return n, err
}

// Connect returns a broker of NATS or Redis, whose server has the URL.
func Connect(name, url string) (broker.HistoryBroker, error) {
	switch name {
	case NATS:
		return natsbroker.New(natsbroker.Options{URL: url})
	case Redis:
		return redisbroker.New(redisbroker.Options{URL: url})
	}
	return nil, fmt.Errorf("nodes: the broker is %q, want one of %v", name, Brokers())
}

// manage returns a manager on top of a broker, which is closed before everything that was opened earlier.
func (n *node) manage(b broker.Broker) (*manager.Manager, error) {
	m, err := manager.New(manager.Options{Broker: b})
	if err == nil {
		n.closers = append(n.closers, func() error { return m.Close(context.Background()) })
	}
	return m, err
}

package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/control"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/usage"
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

// Options say which node is run.
type Options struct {
	Broker string
	// URL is where the server of NATS or Redis is.
	URL string
	// Addr is where an embedded server listens for others of its cluster, and Routes where all of them do.
	Addr   string
	Routes []string
}

// pair are the manager that publishes and the one that receives, which are one and the same but for Memory.
type pair struct {
	from, to *manager.Manager
	close    func() error
}

func open(o Options) (*pair, error) {
	switch o.Broker {
	case Memory:
		hub := broker.NewMemory(broker.MemoryOptions{})
		return join(nil, hub.Node(), hub.Node())
	case NATS:
		b, err := natsbroker.New(natsbroker.Options{URL: o.URL})
		if err != nil {
			return nil, err
		}
		return join(nil, b)
	case Redis:
		b, err := redisbroker.New(redisbroker.Options{URL: o.URL})
		if err != nil {
			return nil, err
		}
		return join(nil, b)
	case Embedded:
		return openEmbedded(o)
	}
	return nil, fmt.Errorf("nodes: the broker is %q, want one of %v", o.Broker, Brokers())
}

func openEmbedded(o Options) (*pair, error) {
	server, err := embedded.Start(embedded.Options{ClusterAddr: o.Addr, ClusterRoutes: o.Routes})
	if err != nil {
		return nil, err
	}
	b, err := natsbroker.New(natsbroker.Options{Server: server})
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return join(server, b)
}

// join makes a manager for each broker. Resources that they share are closed after them.
func join(needed io.Closer, brokers ...broker.Broker) (*pair, error) {
	var managers []*manager.Manager
	end := func() error {
		var all error
		for _, m := range managers {
			all = errors.Join(all, m.Close(context.Background()))
		}
		if needed != nil {
			all = errors.Join(all, needed.Close())
		}
		return all
	}
	for _, b := range brokers {
		m, err := manager.New(manager.Options{Broker: b})
		if err != nil {
			return nil, errors.Join(err, end())
		}
		managers = append(managers, m)
	}
	return &pair{managers[0], managers[len(managers)-1], end}, nil
}

// ServerAnswer is the answer of a NATS server: its address and its processor time.
type ServerAnswer struct {
	Addr string `json:"addr"`
	CPU  int64  `json:"cpu"`
}

// RunServer runs a server of NATS on a free port of the loopback interface until in ends. To each request it
// answers how it stands.
func RunServer(in io.Reader, out io.Writer) error {
	server, err := embedded.Start(embedded.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	look := func() ServerAnswer { return ServerAnswer{server.Addr().String(), usage.CPU()} }
	err = control.Reply(out, look(), nil)
	if err == nil {
		err = control.Serve(in, out, func(struct{}) (ServerAnswer, bool, error) { return look(), false, nil })
	}
	return errors.Join(err, server.Close())
}

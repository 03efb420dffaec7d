package main

import (
	"context"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
)

type nodesCommand struct {
	Brokers []string `arg:"" optional:"" name:"broker" help:"${brokers} (all)."`

	Publishers []int         `default:"64,1024" help:"How many publish at once; as many messages do the yardsticks have in flight."`
	Uploads    int           `default:"100" help:"Uploads that messages go to, with a subscriber each."`
	Bytes      int           `default:"256" help:"Size of a message."`
	Rates      []float64     `default:"2000" help:"Messages per second at which the latency is measured."`
	Share      []float64     `default:"0.5" help:"Further rates, as shares of what the broker was measured to bring."`
	Yardsticks bool          `default:"true" negatable:"" help:"Measure the brokers' own benchmark clients too."`
	Repeat     int           `default:"5" help:"How often to measure everything."`
	Measure    time.Duration `default:"1s" help:"How long publishing goes on as fast as it goes."`
	Duration   time.Duration `default:"3s" help:"How long it goes on at a fixed rate."`
	Patience   time.Duration `default:"60s" help:"How long a single step may take."`

	Out      string `placeholder:"DIR" help:"Where the results go (benchmarks/results of the repository)."`
	Profiles string `placeholder:"DIR" help:"Where to put processor profiles of the nodes (none are taken)."`
}

// Run measures, and reports.
func (c *nodesCommand) Run(ctx context.Context, std streams) error {
	names := c.Brokers
	if len(names) == 0 {
		names = nodes.Brokers()
	}
	return measure(ctx, std, c.Out, runner.Config{
		Nodes: runner.NodeOptions{
			Brokers: names, Publishers: c.Publishers, Uploads: c.Uploads, Rates: c.Rates, Loads: c.Share, Yardsticks: c.Yardsticks,
		},
		Connections: 1, Bytes: c.Bytes, Burst: 1, UnicastRounds: 1, Repeat: c.Repeat, Measure: c.Measure, Duration: c.Duration,
		Settle: time.Second, Patience: c.Patience, Profiles: c.Profiles,
	})
}

type nodeCommand struct {
	Broker string   `required:"" help:"Name of the broker."`
	URL    string   `help:"Where the server of NATS or Redis is."`
	Addr   string   `help:"Where an embedded server listens for the others of its cluster."`
	Route  []string `help:"Where the servers of the cluster listen."`
}

// Run runs one node until it receives quit.
func (c *nodeCommand) Run(ctx context.Context, std streams) error {
	return nodes.Run(ctx, nodes.Options{Broker: c.Broker, URL: c.URL, Addr: c.Addr, Routes: c.Route}, std.in, std.out)
}

type natsServerCommand struct{}

// Run runs a NATS server until it receives quit.
func (c *natsServerCommand) Run(std streams) error { return nodes.RunServer(std.in, std.out) }

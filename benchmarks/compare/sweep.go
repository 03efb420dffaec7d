package main

import (
	"context"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/sinks"
)

type sweepCommand struct {
	Names []string `arg:"" optional:"" name:"sweep" help:"${sweeps} (all)."`

	Receivers  []int     `default:"10,30,100,300,1000,1024,2000,5000,10000,30000,100000,300000,1000000" help:"Receivers of a message, without sockets."`
	Logical    []int     `default:"1000,10000,100000,300000,1000000" help:"Connections without sockets, of memory."`
	Procs      []int     `default:"1,2,4" help:"GOMAXPROCS, of cores."`
	Population int       `default:"100000" help:"Connections and uploads of cores, without sockets."`
	Sockets    []int     `default:"10,100,1000,5000,15000" help:"Receivers of a message, over sockets."`
	Bursts     []int     `default:"1,3,10,30,100,300" help:"Messages published at once, of burst."`
	Stalled    []float64 `default:"0,0.01,0.05,0.1,0.25,0.5" help:"Shares of the clients that do not read, of stalled."`
	Servers    []int     `default:"1,2,3" help:"Servers that share the clients, of servers."`

	Connections int           `default:"5000" help:"Clients, in cores, burst, stalled and servers."`
	Bytes       int           `default:"256" help:"Size of a message."`
	Burst       int           `default:"40" help:"Messages published at once, in cores and servers."`
	Repeat      int           `default:"3" help:"How often to measure everything."`
	Measure     time.Duration `default:"500ms" help:"How long a run measures at least."`
	Duration    time.Duration `default:"3s" help:"How long a run of stalled takes."`
	Patience    time.Duration `default:"60s" help:"How long a single step may take."`

	Out      string `placeholder:"DIR" help:"Where the results go (benchmarks/results of the repository)."`
	Profiles string `placeholder:"DIR" help:"Where to put a processor profile of each server (none are taken)."`
}

// Run measures, and reports.
func (c *sweepCommand) Run(ctx context.Context, std streams) error {
	names := c.Names
	if len(names) == 0 {
		names = runner.AllSweeps()
	}
	return measure(ctx, std, c.Out, runner.Config{
		Sweeps: runner.Sweeps{
			Names: names, Population: c.Population, Receivers: c.Receivers, Logical: c.Logical, Procs: c.Procs, Sockets: c.Sockets, Bursts: c.Bursts,
			Servers: c.Servers, Stalled: c.Stalled,
		},
		Connections: c.Connections, Bytes: c.Bytes, Burst: c.Burst, UnicastRounds: 1, Repeat: c.Repeat, Measure: c.Measure,
		Duration: c.Duration, Settle: time.Second, Patience: c.Patience, Profiles: c.Profiles,
	})
}

type sinksCommand struct{}

// Run holds connections that only count messages, until it receives quit.
func (c *sinksCommand) Run(std streams) error { return sinks.Run(std.in, std.out) }

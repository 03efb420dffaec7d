// Package runner measures: it starts a server and its clients as two processes, executes a scenario and records the results,
// system after system, interleaved and repeated.
package runner

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/link"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/sinks"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// Config describes a measurement. Its parts are the flags of commands: Common is of all, and one of the others is set.
type Config struct {
	Common
	Scenarios *Scenarios
	Sweeps    *Sweeps
	Nodes     *Nodes

	// Folder is where results are written, Program this program, and Progress receives a line for each step.
	Folder, Program string
	Progress        io.Writer
}

// Common are the flags of all measurements. The defaults are set by each command.
type Common struct {
	Repeat   int           `default:"${repeat}" help:"How often to measure everything."`
	Bytes    int           `default:"256" help:"Size of a message."`
	Measure  time.Duration `default:"${measure}" help:"How long a run at full speed lasts at least."`
	Duration time.Duration `default:"${duration}" help:"How long a run at a fixed rate lasts (S4, S9 latency, S10)."`
	Patience time.Duration `default:"60s" help:"How long a single step may take."`
	Out      string        `placeholder:"DIR" help:"Where the results go (benchmarks/results of the repository)."`
	Profiles string        `placeholder:"DIR" help:"Where to put a processor profile of each server (none are taken)."`
}

// Clients are the flags of measurements over sockets.
type Clients struct {
	Connections int `default:"5000" help:"Clients, where no other flag says how many."`
	Burst       int `default:"40" help:"Messages that are published at once."`
}

// Scenarios are the flags of S1 to S6 and S10 to S12.
type Scenarios struct {
	Clients
	Scenario []string `sep:"," placeholder:"S1,S2" help:"Scenarios to measure, of S1 to S6 and S10 to S12 (all but S10, which needs root)."`
	System   []string `sep:"," aliases:"systems" placeholder:"NAME" help:"Systems to measure, see compare systems (all)."`

	Idle          []int           `default:"5000,15000" help:"Idle clients of S5."`
	UnicastRounds int             `default:"10" help:"Messages to each client that S3 publishes at once."`
	Share         []float64       `default:"0.5" help:"Rates of S4, as shares of what the write loop delivers in S2."`
	Stalled       []float64       `default:"0,0.05" help:"Shares of the clients of S4 that do not read."`
	Subscribers   []int           `default:"1,10" help:"Clients of S11."`
	Rate          float64         `default:"1000" help:"Messages per second of S11."`
	TLS           bool            `name:"tls" help:"Measure S1 to S6 over TLS."`
	Publishers    int             `default:"16" help:"Publishers of S12."`
	Batch         int             `default:"40" help:"Messages in a request of S12's batches."`
	Uploads       int             `default:"1000" help:"Uploads of S12's batches over many."`
	Kbits         []int           `default:"64,160,1000" help:"Links of S10, kbit/s."`
	Delay         []time.Duration `default:"50ms,300ms" help:"Delays of S10's links each way."`
	Loss          []float64       `default:"0.01" help:"Shares of the packets that S10's links lose."`
	States        float64         `default:"150" help:"Messages per second of S10."`
	StateBytes    int             `default:"600" help:"Size of S10's messages."`
	WarmUp        time.Duration   `default:"10s" help:"How long S10 publishes first, while buffers on the way fill up."`
	Centrifugo    string          `placeholder:"FILE" env:"COMPARE_CENTRIFUGO" help:"Program of Centrifugo (the one installed by naming centrifugo in --system)."`
	Settle        time.Duration   `default:"2s" help:"How long the idle clients of S5 are left alone first."`
}

// Sweeps are the flags of sweeps: names, and the values of each swept parameter.
type Sweeps struct {
	Clients
	Names []string `arg:"" optional:"" name:"sweep" help:"${sweeps} (all)."`

	Receivers  []int     `default:"10,30,100,300,1000,1024,2000,5000,10000,30000,100000,300000,1000000" help:"Receivers of a message, without sockets."`
	Logical    []int     `default:"1000,10000,100000,300000,1000000" help:"Connections without sockets, of memory."`
	Procs      []int     `default:"1,2,4" help:"GOMAXPROCS, of cores."`
	Population int       `default:"100000" help:"Connections and uploads of cores, without sockets."`
	Sockets    []int     `default:"10,100,1000,5000,15000" help:"Receivers of a message, over sockets."`
	Bursts     []int     `default:"1,3,10,30,100,300" help:"Messages published at once, of burst."`
	Stalled    []float64 `default:"0,0.01,0.05,0.1,0.25,0.5" help:"Shares of the clients that do not read, of stalled."`
	Servers    []int     `default:"1,2,3" help:"Servers that share the clients, of servers."`
}

// Nodes are the flags of S9.
type Nodes struct {
	Brokers []string `arg:"" optional:"" name:"broker" help:"${brokers} (all)."`

	Publishers []int     `default:"64,1024" help:"How many publish at once; as many messages do the yardsticks have in flight."`
	Uploads    int       `default:"100" help:"Uploads that messages go to, with a subscriber each."`
	Rates      []float64 `default:"2000" help:"Messages per second at which the latency is measured."`
	Share      []float64 `default:"0.5" help:"Further rates, as shares of the measured throughput of the broker."`
	Yardsticks bool      `default:"true" negatable:"" help:"Measure the brokers' own benchmark clients too."`
}

// Bounds of values. Of a burst longer than maxBurst, the length of a connection's queue, states that are out of date are
// replaced instead of delivered.
const (
	maxRate    = 1e6 // messages per second, more than any broker delivers
	maxProcs   = 1024
	maxBurst   = 1024
	maxServers = 16
	spareFiles = 100 // that a process needs beyond its connections
	below      = 1 - 1e-9
	above      = 1e-9
)

// bound is a flag with its values and their bounds.
type bound struct {
	flag        string
	values      []float64
	least, most float64
}

func numbers[N int | float64 | time.Duration](values ...N) []float64 {
	var all []float64
	for _, v := range values {
		all = append(all, float64(v))
	}
	return all
}

// validate refuses invalid flags, all at once.
func (c Config) validate() error {
	all := []error{message.CheckSize(c.Bytes)}
	bounds := []bound{
		{"repeat", numbers(c.Repeat), 1, 1e6}, {"measure", numbers(c.Measure), 1, 1e15},
		{"duration", numbers(c.Duration), 1, 1e15}, {"patience", numbers(c.Patience), 1, 1e15},
	}
	known := func(flag string, names, from []string) {
		for _, name := range names {
			if !slices.Contains(from, name) {
				all = append(all, fmt.Errorf("runner: %s is %q, want some of %s", flag, name, strings.Join(from, ", ")))
			}
		}
	}
	files := maxConnections()
	switch {
	case c.Sweeps != nil:
		s := c.Sweeps
		known("sweep", s.Names, AllSweeps())
		bounds = append(bounds, s.bounds(files)...)
		bounds = append(bounds,
			bound{"receivers", numbers(s.Receivers...), 1, sinks.MaxUploads}, bound{"logical", numbers(s.Logical...), 1, sinks.MaxUploads},
			bound{"population", numbers(s.Population), 1, sinks.MaxUploads}, bound{"procs", numbers(s.Procs...), 1, maxProcs},
			bound{"sockets", numbers(s.Sockets...), 1, files}, bound{"bursts", numbers(s.Bursts...), 1, maxBurst},
			bound{"servers", numbers(s.Servers...), 1, float64(min(maxServers, s.Connections))}, bound{"stalled", s.Stalled, 0, below})
	case c.Nodes != nil:
		n := c.Nodes
		known("broker", n.Brokers, nodes.Brokers())
		bounds = append(bounds, bound{"publishers", numbers(n.Publishers...), 1, nodes.MaxPublishers},
			bound{"uploads", numbers(n.Uploads), 1, nodes.MaxUploads}, bound{"rates", n.Rates, 1, maxRate}, bound{"share", n.Share, above, 1})
	default:
		s := c.Scenarios
		known("--scenario", s.Scenario, scenarioNames())
		known("--system", s.System, systems.Names())
		bounds = append(bounds, s.bounds(files)...)
		bounds = append(bounds, bound{"idle", numbers(s.Idle...), 1, files}, bound{"subscribers", numbers(s.Subscribers...), 1, files},
			bound{"unicast-rounds", numbers(s.UnicastRounds), 1, 1e6}, bound{"share", s.Share, above, 1}, bound{"stalled", s.Stalled, 0, below},
			bound{"rate", numbers(s.Rate), 1, maxRate}, bound{"settle", numbers(s.Settle), 1, 1e15},
			bound{"publishers", numbers(s.Publishers), 1, files}, bound{"batch", numbers(s.Batch), 1, 1e4}, bound{"uploads", numbers(s.Uploads), 1, files})
		if slices.Contains(s.Scenario, results.Fresh) {
			all = append(all, link.Check(), message.CheckSize(s.StateBytes))
		}
	}
	for _, b := range bounds {
		for _, v := range b.values {
			if !(v >= b.least && v <= b.most) {
				all = append(all, fmt.Errorf("runner: --%s is %s, want %s to %s", b.flag, plain(v), plain(b.least), plain(b.most)))
			}
		}
	}
	return errors.Join(all...)
}

// plain writes a number without an exponent.
func plain(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func (c Clients) bounds(files float64) []bound {
	return []bound{{"connections", numbers(c.Connections), 1, files}, {"burst", numbers(c.Burst), 1, maxBurst * 100}}
}

// maxConnections is the number of connections that this system's limit of open files allows.
func maxConnections() float64 {
	most := uint64(1 << 20)
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		most = min(limit.Cur, most) - spareFiles
	}
	return float64(most)
}

package runner

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/sinks"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// The sweeps: how the cost grows with the work.
const (
	Receivers = "receivers" // of one message, without sockets
	Logical   = "memory"    // connections and subscriptions, without sockets
	Cores     = "cores"     // GOMAXPROCS
	Sockets   = "sockets"   // receivers of one message, as S2
	Bursts    = "burst"     // messages published at once, as S1
	Stalls    = "stalled"   // share of the clients that do not read, as S4
	Servers   = "servers"   // processes on this machine that share the clients
)

// AllSweeps lists them in their order.
func AllSweeps() []string {
	return []string{Receivers, Logical, Cores, Sockets, Bursts, Stalls, Servers}
}

// Sweeps selects the swept parameter and its values.
type Sweeps struct {
	// Names are those of the sweeps. None: scenarios are measured.
	Names []string

	// Population is the number of connections, and of uploads, with which work without sockets is swept over
	// cores.
	Population int

	Receivers, Logical, Procs, Sockets, Bursts, Servers []int
	Stalled                                             []float64
}

// inProcess are trials without sockets, which are not measured as any scenario is.
const inProcess = ""

// point is one value of a sweep.
type point struct {
	scenario string // as which it is measured
	system   string
	params   results.Params
}

// points lists the values of a sweep.
func (c Config) points(sweep string) []point {
	switch sweep {
	case Receivers:
		return c.receiverPoints()
	case Logical:
		return c.logicalPoints()
	case Cores:
		return c.corePoints()
	case Sockets, Bursts, Stalls:
		return c.socketPoints(sweep)
	}
	return c.serverPoints()
}

func (c Config) receiverPoints() []point {
	var all []point
	for _, n := range c.Sweeps.Receivers {
		p := results.Params{Connections: n, Channels: 1, Bytes: c.Bytes}
		for _, line := range []results.Params{{Work: results.Broadcast, Procs: 1}, {Work: results.Broadcast, Procs: 2}, {Work: results.Shuffled, Procs: 2}} {
			p.Work, p.Procs = line.Work, line.Procs
			all = append(all, point{inProcess, systems.OwnName, p})
		}
	}
	return all
}

func (c Config) logicalPoints() []point {
	var all []point
	for _, n := range c.Sweeps.Logical {
		p := results.Params{Connections: n, Bytes: c.Bytes}
		p.Channels, p.Work = 1, results.OneUpload
		all = append(all, point{inProcess, systems.OwnName, p})
		p.Channels, p.Work = n, results.OwnUpload
		all = append(all, point{inProcess, systems.OwnName, p})
	}
	return all
}

func (c Config) corePoints() []point {
	var all []point
	add := func(scenario, work string, p results.Params) {
		p.Work, p.Bytes = work, c.Bytes
		all = append(all, point{scenario, systems.OwnName, p})
	}
	for _, procs := range c.Sweeps.Procs {
		logical := results.Params{Connections: c.Sweeps.Population, Channels: c.Sweeps.Population, Procs: procs}
		add(inProcess, results.Publish, logical)
		add(inProcess, results.Churn, logical)
		logical.Channels = 1
		add(inProcess, results.Broadcast, logical)
		add(Burst, results.OverSockets, results.Params{Connections: c.Connections, Channels: 1, Messages: c.Burst, Procs: procs})
	}
	return all
}

// socketPoints are those of sweeps that are measured as a scenario is, with one parameter after the other.
func (c Config) socketPoints(sweep string) []point {
	var all []point
	p := results.Params{Connections: c.Connections, Channels: 1, Bytes: c.Bytes, Messages: 1}
	switch sweep {
	case Sockets:
		for _, p.Connections = range c.Sweeps.Sockets {
			all = append(all, point{Single, systems.OwnName, p}, point{Single, writeLoop, p})
		}
	case Bursts:
		for _, p.Messages = range c.Sweeps.Bursts {
			all = append(all, point{Burst, systems.OwnName, p}, point{Burst, joinedWrite, p})
		}
	default:
		p.Load, p.Messages = stallsLoad, 0
		for _, p.Stalled = range c.Sweeps.Stalled {
			all = append(all, point{Latency, systems.OwnName, p})
		}
	}
	return all
}

// stallsLoad is the share of the write loop's capacity at which the share of stalled clients is swept.
const stallsLoad = 0.5

// serverPoints has as many connections altogether for any number of servers, but for what cannot be divided.
func (c Config) serverPoints() []point {
	var all []point
	for _, servers := range c.Sweeps.Servers {
		p := results.Params{Connections: c.Connections / servers * servers, Channels: 1, Bytes: c.Bytes, Servers: servers}
		for _, p.Messages = range []int{1, c.Burst} {
			all = append(all, point{Burst, systems.OwnName, p})
		}
	}
	return all
}

// sweepPlan returns the trials of the sweeps. Within a repetition the values of a sweep alternate.
func (c Config) sweepPlan() ([]trial, error) {
	var trials []trial
	for _, sweep := range c.Sweeps.Names {
		for repeat := 1; repeat <= c.Repeat; repeat++ {
			for _, p := range c.points(sweep) {
				entry, err := systems.Find(p.system)
				if err != nil {
					return nil, err
				}
				trials = append(trials, trial{scenario: p.scenario, sweep: sweep, entry: entry, repeat: repeat, params: p.params})
			}
		}
	}
	return trials, nil
}

// The bounds of the values of sweeps. Of a burst longer than maxBurst, the length of a connection's queue
// holds, states that are out of date are replaced instead of delivered.
const (
	maxLogical = sinks.MaxUploads
	maxProcs   = 1024
	maxBurst   = 1024
	maxServers = 16
)

// validate refuses names and values that make no sense.
func (s Sweeps) validate(mostFiles, connections int) error {
	var all []error
	for _, name := range s.Names {
		if !slices.Contains(AllSweeps(), name) {
			all = append(all, fmt.Errorf("runner: %q is no sweep, want some of %s", name, strings.Join(AllSweeps(), ", ")))
		}
	}
	if len(s.Names) == 0 {
		return nil
	}
	for _, list := range []struct {
		flag   string
		values []int
		most   int
	}{
		{"receivers", s.Receivers, maxLogical},
		{"logical", s.Logical, maxLogical},
		{"population", []int{s.Population}, maxLogical},
		{"procs", s.Procs, maxProcs},
		{"sockets", s.Sockets, mostFiles},
		{"bursts", s.Bursts, maxBurst},
		{"servers", s.Servers, min(maxServers, connections)},
	} {
		for _, n := range list.values {
			if n < 1 || n > list.most {
				all = append(all, fmt.Errorf("runner: --%s is %d, want 1 to %d", list.flag, n, list.most))
			}
		}
	}
	return errors.Join(all...)
}

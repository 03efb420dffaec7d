package runner

import (
	"slices"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
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

// stallsLoad is the share of the write loop's capacity at which the share of stalled clients is swept.
const stallsLoad = 0.5

// Yardsticks: the rates of S4 are shares of the write loop's throughput.
const (
	writeLoop   = "write-loop"
	joinedWrite = "joined-write"
)

// sweepPlan returns the trials of the sweeps. Within a repetition the values of a sweep alternate.
func (c Config) sweepPlan() (trials []trial) {
	for _, sweep := range AllSweeps() {
		if len(c.Sweeps.Names) > 0 && !slices.Contains(c.Sweeps.Names, sweep) {
			continue
		}
		points := c.points(sweep)
		for repeat := 1; repeat <= c.Repeat; repeat++ {
			for _, t := range points {
				t.sweep, t.repeat, t.params.Bytes = sweep, repeat, c.Bytes
				trials = append(trials, t)
			}
		}
	}
	return trials
}

// points lists the values of a sweep.
func (c Config) points(sweep string) (all []trial) {
	s, p := c.Sweeps, c.params()
	without := func(p results.Params) { all = append(all, trial{measure: (*measurement).withoutSockets, params: p}) }
	over := func(scenario string, measure func(*measurement), p results.Params) {
		all = append(all, trial{scenario: scenario, measure: measure, params: p})
	}
	switch sweep {
	case Receivers:
		for _, p.Connections = range s.Receivers {
			for _, line := range []results.Params{{Work: results.Broadcast, Procs: 1}, {Work: results.Broadcast, Procs: 2}, {Work: results.Shuffled, Procs: 2}} {
				p.Work, p.Procs = line.Work, line.Procs
				without(p)
			}
		}
	case Logical:
		for _, n := range s.Logical {
			without(results.Params{Connections: n, Channels: 1, Work: results.OneUpload})
			without(results.Params{Connections: n, Channels: n, Work: results.OwnUpload})
		}
	case Cores:
		for _, procs := range s.Procs {
			logical := results.Params{Connections: s.Population, Channels: s.Population, Procs: procs}
			for _, logical.Work = range []string{results.Publish, results.Churn} {
				without(logical)
			}
			logical.Channels, logical.Work = 1, results.Broadcast
			without(logical)
			p.Messages, p.Procs, p.Work = s.Burst, procs, results.OverSockets
			over(Burst, (*measurement).throughput, p)
		}
	case Sockets:
		p.Messages = 1
		for _, p.Connections = range s.Sockets {
			over(Single, (*measurement).throughput, p)
		}
		return beside(all, writeLoop)
	case Bursts:
		for _, p.Messages = range s.Bursts {
			over(Burst, (*measurement).throughput, p)
		}
		return beside(all, joinedWrite)
	case Stalls:
		p.Load = stallsLoad
		for _, p.Stalled = range s.Stalled {
			over(Latency, (*measurement).latency, p)
		}
	case Servers: // as many connections altogether for any number of servers, but for the remainder of the division
		for _, p.Servers = range s.Servers {
			p.Connections = s.Connections / p.Servers * p.Servers
			for _, p.Messages = range []int{1, s.Burst} {
				over(Burst, (*measurement).throughput, p)
			}
		}
	}
	return beside(all)
}

// beside returns the trials for this project and for other systems, in turn.
func beside(trials []trial, names ...string) (all []trial) {
	for _, t := range trials {
		for _, name := range append([]string{systems.OwnName}, names...) {
			t.entry, _ = systems.Find(name) // one of All
			all = append(all, t)
		}
	}
	return all
}

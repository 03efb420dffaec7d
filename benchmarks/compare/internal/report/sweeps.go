package report

import (
	"fmt"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/sinks"
	"github.com/shoal-go/shoal/internal/plot"
)

// sweep is how the influence of one parameter is shown.
type sweep struct {
	name, title string
	// along is the name of the parameter, of returns its value, and write writes one.
	along       string
	of          func(results.Params) float64
	write       func(float64) string
	logarithmic bool
	// apart distinguishes the rows of the table, beside the system and the parameter. nil: nothing does.
	apart   func(results.Params) string
	columns []column
	graph   graph // without lines: none
}

func (s sweep) label(system string, p results.Params) string {
	if s.apart == nil {
		return system
	}
	return system + ", " + s.apart(p)
}

// graph is a chart of a sweep.
type graph struct {
	file, title, unit string
	lines             []line
	// relative: values are drawn as multiples of the first one.
	relative bool
	// marks are the notes along the axis. nil: none.
	marks func(results.Provenance) []plot.Mark
}

// line is one curve of a graph: the figures of a system, of a work, and with a GOMAXPROCS, where these are given.
type line struct {
	name         string
	metric       results.Metric
	system, work string
	procs        int
}

// shows reports whether a figure belongs to the line.
func (l line) shows(system string, p results.Params) bool {
	return (l.system == "" || l.system == system) && (l.work == "" || l.work == p.Work) && (l.procs == 0 || l.procs == p.Procs)
}

// sweeps are shown in this order.
var sweeps = []sweep{
	{
		name: runner.Receivers, title: "one message to many, without sockets",
		along: "receivers", of: connections, write: grouped, logarithmic: true,
		apart:   func(p results.Params) string { return fmt.Sprintf("%s, GOMAXPROCS %d", p.Work, p.Procs) },
		columns: []column{{"ns/receiver", results.PerReceiver, plot.Short}},
		graph: graph{
			file: "receivers-cost", title: "One message to many, without sockets: the cost of a receiver",
			unit: "ns per receiver, by the clock",
			lines: []line{
				{name: "1 core", metric: results.PerReceiver, work: results.Broadcast, procs: 1},
				{name: "2 cores", metric: results.PerReceiver, work: results.Broadcast, procs: 2},
				{name: "2 cores, shuffled", metric: results.PerReceiver, work: results.Shuffled, procs: 2},
			},
			marks: fullCaches,
		},
	},
	{
		name: runner.Logical, title: "connections and subscriptions, without sockets",
		along: "connections, each with a subscription", of: connections, write: grouped, logarithmic: true, apart: workOf,
		columns: []column{
			{"bytes/connection", results.RegistryConnection, grouped},
			{"bytes/subscription", results.RegistrySubscription, grouped},
			{"bytes/held message", results.HeldMessage, grouped},
			{"ns/connect", results.ConnectTime, grouped}, {"ns/subscribe", results.SubscribeTime, grouped},
			{"publishes/s, all cores", results.Operations, grouped},
			{"heap, MB", results.Heap, millions}, {"resident, MB", results.ResidentTotal, millions},
			{"garbage collection, ms", results.Collected, plot.Short}, {"longest pause, ms", results.Pause, plot.Short},
		},
	},
	{
		name: runner.Cores, title: "more cores",
		along: "GOMAXPROCS", of: func(p results.Params) float64 { return float64(p.Procs) }, write: grouped, apart: workOf,
		columns: []column{
			{"operations/s", results.Operations, grouped}, {"delivered messages/s", results.Throughput, grouped},
			{"messages/write", results.PerWrite, plot.Short},
		},
		graph: graph{
			file: "cores-throughput", title: "More cores", unit: "times as much as on the first",
			lines: []line{
				{name: "publish", metric: results.Operations, work: results.Publish},
				{name: "subscribe", metric: results.Operations, work: results.Churn},
				{name: "broadcast", metric: results.Operations, work: results.Broadcast},
				{name: "S1, over sockets", metric: results.Throughput, work: results.OverSockets},
			},
			relative: true, marks: allCores,
		},
	},
	{
		name: runner.Sockets, title: "one message to many, over sockets", along: "receivers", of: connections, write: grouped, logarithmic: true,
		columns: singleColumns,
	},
	{
		name: runner.Bursts, title: "longer bursts to all",
		along: "messages in a burst", of: func(p results.Params) float64 { return float64(p.Messages) }, write: grouped, logarithmic: true,
		columns: burstColumns,
		graph: graph{
			file: "burst-cpu", title: "Longer bursts to all: the cost of a message", unit: "server CPU, ns per delivered message",
			lines: []line{
				{name: own, metric: results.ServerCPU, system: own}, {name: "joined write", metric: results.ServerCPU, system: "joined-write"},
			},
		},
	},
	{
		name: runner.Stalls, title: "clients that do not read",
		along: "share of the clients that do not read", of: func(p results.Params) float64 { return p.Stalled }, write: percent,
		columns: latencyColumns,
	},
	{
		name: runner.Servers, title: "servers on one machine",
		along: "servers that share the clients", of: func(p results.Params) float64 { return float64(p.Servers) }, write: grouped,
		apart:   func(p results.Params) string { return fmt.Sprintf("%d at a time", p.Messages) },
		columns: burstColumns,
	},
}

func connections(p results.Params) float64 { return float64(p.Connections) }

func workOf(p results.Params) string { return p.Work }

// fullCaches marks the value from which on the memory of a broadcast exceeds a core's caches.
func fullCaches(p results.Provenance) []plot.Mark {
	return []plot.Mark{
		{X: float64(p.L2) / float64(sinks.Touched), Text: "L2 is full"}, {X: float64(p.L3) / float64(sinks.Touched), Text: "L3 is full"},
	}
}

// allCores marks the machine's number of cores.
func allCores(p results.Provenance) []plot.Mark {
	return []plot.Mark{{X: float64(p.Cores), Text: "all cores"}}
}

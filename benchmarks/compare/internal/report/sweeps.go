package report

import (
	"fmt"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/sinks"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
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

// line is one curve of a graph.
type line struct {
	name   string
	metric results.Metric
	of     func(results.Record) bool
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
				{"1 core", results.PerReceiver, workOn(results.Broadcast, 1)},
				{"2 cores", results.PerReceiver, workOn(results.Broadcast, 2)},
				{"2 cores, shuffled", results.PerReceiver, workOn(results.Shuffled, 2)},
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
				{"publish", results.Operations, work(results.Publish)}, {"subscribe", results.Operations, work(results.Churn)},
				{"broadcast", results.Operations, work(results.Broadcast)}, {"S1, over sockets", results.Throughput, work(results.OverSockets)},
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
				{systems.OwnName, results.ServerCPU, system(systems.OwnName)}, {"joined write", results.ServerCPU, system("joined-write")},
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

// The figures that a line can show.

func system(name string) func(results.Record) bool {
	return func(r results.Record) bool { return r.System == name }
}

func work(name string) func(results.Record) bool {
	return func(r results.Record) bool { return r.Params.Work == name }
}

func workOn(name string, procs int) func(results.Record) bool {
	return func(r results.Record) bool { return r.Params.Work == name && r.Params.Procs == procs }
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

package report

import (
	"fmt"

	"github.com/shoal-go/shoal/internal/plot"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/sinks"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
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
	graphs  []graph
}

func (s sweep) label(r results.Record) string {
	if s.apart == nil {
		return r.System
	}
	return r.System + ", " + s.apart(r.Params)
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
		graphs: []graph{{
			file: "receivers-cost", title: "One message to many, without sockets: the cost of a receiver",
			unit: "ns per receiver, by the clock",
			lines: []line{
				{"1 core", results.PerReceiver, workOn(results.Broadcast, 1)},
				{"2 cores", results.PerReceiver, workOn(results.Broadcast, 2)},
				{"2 cores, shuffled", results.PerReceiver, workOn(results.Shuffled, 2)},
			},
			marks: fullCaches,
		}},
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
		graphs: []graph{
			{file: "memory-bytes", title: "Memory of the registry", unit: "bytes on the heap for each", lines: []line{
				{"subscription, shared", results.RegistrySubscription, work(results.OneUpload)},
				{"subscription, own upload", results.RegistrySubscription, work(results.OwnUpload)},
				{"connection", results.RegistryConnection, work(results.OwnUpload)},
				{"message held", results.HeldMessage, work(results.OwnUpload)},
			}},
			{file: "memory-publish", title: "Publishing to one of many uploads, without sockets",
				unit: "messages per second, all cores", lines: []line{{"publish", results.Operations, work(results.OwnUpload)}}},
			{file: "memory-pause", title: "Collecting the garbage while publishing", unit: "milliseconds", lines: []line{
				{"collection", results.Collected, work(results.OwnUpload)}, {"longest pause", results.Pause, work(results.OwnUpload)},
			}},
		},
	},
	{
		name: runner.Cores, title: "more cores",
		along: "GOMAXPROCS", of: func(p results.Params) float64 { return float64(p.Procs) }, write: grouped, apart: workOf,
		columns: []column{
			{"operations/s", results.Operations, grouped}, {"delivered messages/s", results.Throughput, grouped},
			{"messages/write", results.PerWrite, plot.Short},
		},
		graphs: []graph{{
			file: "cores-throughput", title: "More cores", unit: "times as much as on the first",
			lines: []line{
				{"publish", results.Operations, work(results.Publish)}, {"subscribe", results.Operations, work(results.Churn)},
				{"broadcast", results.Operations, work(results.Broadcast)}, {"S1, over sockets", results.Throughput, work(results.OverSockets)},
			},
			relative: true, marks: allCores,
		}},
	},
	{
		name: runner.Sockets, title: "one message to many, over sockets", along: "receivers", of: connections, write: grouped, logarithmic: true,
		columns: singleColumns,
		graphs: []graph{{
			file: "sockets-cpu", title: "One message to many, over sockets: its cost", unit: costUnit,
			lines: beside("write-loop", "write loop", results.ServerCPU),
		}},
	},
	{
		name: runner.Bursts, title: "longer bursts to all",
		along: "messages in a burst", of: func(p results.Params) float64 { return float64(p.Messages) }, write: grouped, logarithmic: true,
		columns: burstColumns,
		graphs: []graph{
			{file: "burst-throughput", title: "Longer bursts to all", unit: "delivered messages per second",
				lines: beside("joined-write", "joined write", results.Throughput)},
			{file: "burst-cpu", title: "Longer bursts to all: the cost of a message", unit: costUnit,
				lines: beside("joined-write", "joined write", results.ServerCPU)},
		},
	},
	{
		name: runner.Stalls, title: "clients that do not read",
		along: "share of the clients that do not read", of: func(p results.Params) float64 { return p.Stalled }, write: percent,
		columns: latencyColumns,
		graphs: []graph{{
			file: "stalled-latency", title: "Clients that do not read: the latency of those that do",
			unit: "milliseconds from the planned send time", lines: []line{
				{"p50", results.P50, everything}, {"p99", results.P99, everything}, {"p99.9", results.P999, everything},
			},
		}},
	},
	{
		name: runner.Servers, title: "servers on one machine",
		along: "servers that share the clients", of: func(p results.Params) float64 { return float64(p.Servers) }, write: grouped,
		apart:   func(p results.Params) string { return fmt.Sprintf("%d at a time", p.Messages) },
		columns: burstColumns,
		graphs: []graph{{
			file: "servers-cpu", title: "Several servers on one machine: the cost of a message", unit: costUnit, lines: []line{
				{"one at a time", results.ServerCPU, atOnce(1, 1)}, {"bursts", results.ServerCPU, atOnce(2, 1<<30)},
			},
		}},
	},
}

// The figures that a line can show.

func everything(results.Record) bool { return true }

func system(name string) func(results.Record) bool {
	return func(r results.Record) bool { return r.System == name }
}

func work(name string) func(results.Record) bool {
	return func(r results.Record) bool { return r.Params.Work == name }
}

func workOn(name string, procs int) func(results.Record) bool {
	return func(r results.Record) bool { return r.Params.Work == name && r.Params.Procs == procs }
}

// beside returns the curves of this project and of a yardstick.
func beside(yardstick, name string, m results.Metric) []line {
	return []line{{systems.OwnName, m, system(systems.OwnName)}, {name, m, system(yardstick)}}
}

func atOnce(least, most int) func(results.Record) bool {
	return func(r results.Record) bool { return r.Params.Messages >= least && r.Params.Messages <= most }
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

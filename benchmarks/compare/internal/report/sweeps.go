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

// sweeps lists them in the order in which they are shown.
func sweeps() []sweep {
	return []sweep{
		receiversSweep(), memorySweep(), coresSweep(), socketsSweep(), burstSweep(), stalledSweep(), serversSweep(),
	}
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

func atOnce(least, most int) func(results.Record) bool {
	return func(r results.Record) bool { return r.Params.Messages >= least && r.Params.Messages <= most }
}

func connections(p results.Params) float64 { return float64(p.Connections) }

func workOf(p results.Params) string { return p.Work }

func receiversSweep() sweep {
	cost := results.PerReceiver
	return sweep{
		name: runner.Receivers, title: "one message to many, without sockets",
		along: "receivers", of: connections, write: grouped, logarithmic: true,
		apart:   func(p results.Params) string { return fmt.Sprintf("%s, GOMAXPROCS %d", p.Work, p.Procs) },
		columns: []column{{"ns/receiver", cost, plot.Short}},
		graphs: []graph{{
			file: "receivers-cost", title: "One message to many, without sockets: the cost of a receiver",
			unit: "ns per receiver, by the clock",
			lines: []line{
				{"1 core", cost, workOn(results.Broadcast, 1)},
				{"2 cores", cost, workOn(results.Broadcast, 2)},
				{"2 cores, shuffled", cost, workOn(results.Shuffled, 2)},
			},
			marks: fullCaches,
		}},
	}
}

func memorySweep() sweep {
	each := work(results.OwnUpload)
	return sweep{
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
				{"subscription, own upload", results.RegistrySubscription, each},
				{"connection", results.RegistryConnection, each},
				{"message held", results.HeldMessage, each},
			}},
			{file: "memory-publish", title: "Publishing to one of many uploads, without sockets",
				unit: "messages per second, all cores", lines: []line{{"publish", results.Operations, each}}},
			{file: "memory-pause", title: "Collecting the garbage while publishing", unit: "milliseconds", lines: []line{
				{"collection", results.Collected, each}, {"longest pause", results.Pause, each},
			}},
		},
	}
}

func coresSweep() sweep {
	m := results.Operations
	return sweep{
		name: runner.Cores, title: "more cores",
		along: "GOMAXPROCS", of: func(p results.Params) float64 { return float64(p.Procs) }, write: grouped, apart: workOf,
		columns: []column{
			{"operations/s", m, grouped}, {"delivered messages/s", results.Throughput, grouped},
			{"messages/write", results.PerWrite, plot.Short},
		},
		graphs: []graph{{
			file: "cores-throughput", title: "More cores", unit: "times as much as on the first",
			lines: []line{
				{"publish", m, work(results.Publish)}, {"subscribe", m, work(results.Churn)},
				{"broadcast", m, work(results.Broadcast)}, {"S1, over sockets", results.Throughput, work(results.OverSockets)},
			},
			relative: true, marks: allCores,
		}},
	}
}

func socketsSweep() sweep {
	return sweep{
		name: runner.Sockets, title: "one message to many, over sockets", along: "receivers", of: connections, write: grouped, logarithmic: true,
		columns: singleColumns,
		graphs: []graph{{
			file: "sockets-cpu", title: "One message to many, over sockets: its cost", unit: costUnit, lines: []line{
				{systems.OwnName, results.ServerCPU, system(systems.OwnName)}, {"write loop", results.ServerCPU, system("write-loop")},
			},
		}},
	}
}

func burstSweep() sweep {
	both := func(m results.Metric) []line {
		return []line{{systems.OwnName, m, system(systems.OwnName)}, {"joined write", m, system("joined-write")}}
	}
	return sweep{
		name: runner.Bursts, title: "longer bursts to all",
		along: "messages in a burst", of: func(p results.Params) float64 { return float64(p.Messages) }, write: grouped, logarithmic: true,
		columns: burstColumns,
		graphs: []graph{
			{file: "burst-throughput", title: "Longer bursts to all", unit: "delivered messages per second", lines: both(results.Throughput)},
			{file: "burst-cpu", title: "Longer bursts to all: the cost of a message", unit: costUnit, lines: both(results.ServerCPU)},
		},
	}
}

func stalledSweep() sweep {
	return sweep{
		name: runner.Stalls, title: "clients that do not read",
		along: "share of the clients that do not read", of: func(p results.Params) float64 { return p.Stalled }, write: percent,
		columns: latencyColumns,
		graphs: []graph{{
			file: "stalled-latency", title: "Clients that do not read: the latency of those that do",
			unit: "milliseconds from the planned send time", lines: []line{
				{"p50", results.P50, everything}, {"p99", results.P99, everything}, {"p99.9", results.P999, everything},
			},
		}},
	}
}

func serversSweep() sweep {
	return sweep{
		name: runner.Servers, title: "servers on one machine",
		along: "servers that share the clients", of: func(p results.Params) float64 { return float64(p.Servers) }, write: grouped,
		apart:   func(p results.Params) string { return fmt.Sprintf("%d at a time", p.Messages) },
		columns: burstColumns,
		graphs: []graph{{
			file: "servers-cpu", title: "Several servers on one machine: the cost of a message", unit: costUnit, lines: []line{
				{"one at a time", results.ServerCPU, atOnce(1, 1)}, {"bursts", results.ServerCPU, atOnce(2, 1<<30)},
			},
		}},
	}
}

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

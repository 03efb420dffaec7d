package report

import (
	"fmt"
	"strconv"

	"github.com/shoal-go/shoal/internal/plot"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
)

// view is how the results of a scenario are shown.
type view struct {
	title   func(results.Params) string
	columns []column
	// limit describes how the machine, or the link, limits all systems of a variant: by a yardstick that does only the
	// unavoidable part of the work. "": unknown.
	limit func(Data, variant) string
	chart bars // without a file: none
}

// column is one of a table.
type column struct {
	title  string
	metric results.Metric
	write  func(float64) string
}

// Columns that several scenarios have.
var (
	share      = column{"generator's share of the CPU", results.GeneratorShare, percent}
	cores      = column{"cores busy", results.CoresUsed, plot.Short}
	throughput = column{"delivered messages/s", results.Throughput, grouped}
	cpu        = column{"server CPU ns/message", results.ServerCPU, grouped}
	late       = column{"published late by at most, ms", results.Late, plot.Short}
	perSecond  = column{"messages/s", results.Throughput, grouped}
)

func p50(write func(float64) string) []column {
	return []column{{"p50 ms", results.P50, write}, {"p99 ms", results.P99, write}, {"p99.9 ms", results.P999, write}}
}

// burstColumns are those of S1 and S3, and of sweeps that are measured as these are.
var burstColumns = []column{
	throughput, cpu, {"messages/write", results.PerWrite, plot.Short}, {"resident bytes/connection", results.Resident, grouped}, share, cores,
}

var singleColumns = []column{throughput, {"ms to the last receiver", results.ToLast, plot.Short}, cpu, share, cores}

var latencyColumns = append(p50(plot.Short), cpu, late, column{"closed", results.Closed, grouped}, share, cores)

// nodeColumns are the processor time of the processes and the number of repeated reads.
var nodeColumns = []column{
	{"CPU ns/message, publishing", results.PublisherCPU, grouped}, {"broker", results.BrokerCPU, grouped},
	{"receiving", results.ReceiverCPU, grouped}, cores, {"recoveries", results.Recovered, grouped},
}

// views are the scenarios by name.
var views = map[string]view{
	"S1": {
		title: func(p results.Params) string {
			return fmt.Sprintf("S1 burst: %s follow one upload, %d messages back to back", clients(p), p.Messages)
		},
		columns: burstColumns, limit: yardstick("joined-write", results.Throughput, grouped, "delivered messages/s"),
		chart: bars{"s1-throughput", "Bursts to all", "delivered messages per second", results.Throughput},
	},
	"S2": {
		title: func(p results.Params) string {
			return "S2 single: " + clients(p) + " follow one upload, one message at a time"
		},
		columns: singleColumns, limit: yardstick("write-loop", results.Throughput, grouped, "delivered messages/s"),
	},
	"S3": {
		title: func(p results.Params) string {
			return fmt.Sprintf("S3 unicast: %s, each with an upload of its own, %s messages round-robin", clients(p), plot.Grouped(p.Messages))
		},
		columns: burstColumns, limit: yardstick("write-loop", results.Throughput, grouped, "delivered messages/s"),
	},
	"S4": {
		title: func(p results.Params) string {
			return fmt.Sprintf("S4 latency: %s, %g of the write loop's capacity, %g %% stalled", clients(p), p.Load, p.Stalled*100)
		},
		columns: latencyColumns, limit: yardstick("write-loop", results.P99, plot.Short, "ms at the 99th percentile"),
	},
	"S5": {
		title: func(p results.Params) string { return "S5 memory: " + clients(p) + ", idle" },
		columns: []column{
			{"bytes per connection", results.PerConnection, grouped}, {"all memory / connections", results.Resident, grouped},
			{"in the kernel, bytes per connection", results.Kernel, grouped},
		},
		limit: kernelMemory,
	},
	"S6": {
		title: func(p results.Params) string {
			return "S6 storm: " + clients(p) + " connect, authenticate and subscribe at once"
		},
		columns: []column{
			{"connections/s", results.ConnectRate, grouped}, {"p50 ms until subscribed", results.ReadyP50, plot.Short},
			{"p99 ms until subscribed", results.ReadyP99, plot.Short}, {"server CPU µs/connection", results.ConnectCPU, grouped}, share, cores,
		},
		limit: yardstick("gws-upgrade", results.ConnectRate, grouped, "connections/s"),
	},
	results.Nodes: {
		title: func(p results.Params) string {
			return fmt.Sprintf("S9 nodes: through %s, %s uploads, %s in flight", p.Work, plot.Grouped(p.Channels), plot.Grouped(p.Publishers))
		},
		columns: append([]column{perSecond}, nodeColumns...), limit: brokersClient,
	},
	results.NodeLatency: {
		title: func(p results.Params) string {
			if p.Load > 0 {
				return fmt.Sprintf("S9 latency: through %s, %g of its capacity", p.Work, p.Load)
			}
			return fmt.Sprintf("S9 latency: through %s, %s messages a second", p.Work, plot.Grouped(p.Rate))
		},
		columns: append(append([]column{perSecond}, append(p50(plot.Short), late)...), nodeColumns...),
		limit: func(d Data, v variant) string {
			return d.yardstick(v, own, results.Late, plot.Short, "ms of delay before a message is published")
		},
	},
	results.Fresh:  freshView(),
	results.Direct: directView(),
	results.Intake: intakeView(),
}

func freshView() view {
	return view{
		title: func(p results.Params) string {
			return fmt.Sprintf("S10 freshness: one client behind %s kbit/s, %d ms each way, %g %% loss; %g states of %s B a second",
				plot.Grouped(p.Kbits), p.DelayMS, p.Loss*100, p.Rate, plot.Grouped(p.Bytes))
		},
		columns: []column{
			{"age p50, s", results.P50, thousands}, {"age p99, s", results.P99, thousands}, {"states received", results.Messages, grouped},
			{"of those published", results.Received, percent}, {"KB received", results.ReceivedBytes, thousands},
			{"connection ended after, s", results.Lasted, thousands}, {"with close code", results.CloseCode, grouped},
		},
		limit: func(_ Data, v variant) string {
			// A frame has a header of 4 bytes, and the packets of TCP carry 1,460 of 1,500 bytes.
			const header, carried = 4, 1460. / 1500
			fit := float64(v.params.Kbits) * 1000 / 8 * carried / float64(v.params.Bytes+header)
			return fmt.Sprintf("at most %s of the %g states a second fit through the link", plot.Short(min(fit, v.params.Rate)), v.params.Rate)
		},
	}
}

func directView() view {
	return view{
		title: func(p results.Params) string {
			return fmt.Sprintf("S11 shortest way: one process, %s messages a second to %s subscribers", plot.Grouped(p.Rate), plot.Grouped(p.Connections))
		},
		columns: []column{
			{"p50 ms from the call", results.CallP50, precise}, {"p99 ms", results.CallP99, precise}, {"p99.9 ms", results.CallP999, precise},
			{"p50 ms from the plan", results.P50, precise}, {"p99 ms", results.P99, precise}, {"p99.9 ms", results.P999, precise}, late,
		},
		limit: yardstick("gws-direct", results.CallP50, precise, "ms from the call"),
	}
}

func intakeView() view {
	return view{
		title: func(p results.Params) string {
			return fmt.Sprintf("S12 intake: %d publishers, %s, %d messages a request, %s", p.Publishers, p.Work, p.Messages, followers(p))
		},
		columns: []column{
			{"published messages/s", results.Throughput, grouped}, {"p50 ms of a request", results.P50, plot.Short},
			{"p99 ms", results.P99, plot.Short}, cpu, {"received by subscribers", results.Received, percent},
			{"publishers' share of the CPU", results.GeneratorShare, percent}, cores,
		},
		limit: func(d Data, v variant) string {
			v.params.Connections = 0
			if p := &v.params; p.Work == results.RedisPublish || p.Work == results.NATSPublish {
				p.Work = results.SinglePost
			}
			return d.yardstick(v, "net-http", results.Throughput, grouped, "messages/s in requests that a handler of net/http only reads")
		},
	}
}

func clients(p results.Params) string { return plot.Grouped(p.Connections) + " connections" }

// followers names the number of subscribers in S12.
func followers(p results.Params) string {
	if p.Connections == 0 {
		return "no subscribers"
	}
	return fmt.Sprintf("one subscriber for each of %s uploads", plot.Grouped(p.Channels))
}

// yardstick returns a limit that is a figure of a system.
func yardstick(system string, metric results.Metric, write func(float64) string, unit string) func(Data, variant) string {
	return func(d Data, v variant) string { return d.yardstick(v, system, metric, write, unit) }
}

// yardstick describes a figure of a system and its use of the processors.
func (d Data) yardstick(v variant, system string, metric results.Metric, write func(float64) string, unit string) string {
	s := d.spread(v, system, metric)
	if s.N == 0 {
		return system + ", which shows it, was not measured"
	}
	text := fmt.Sprintf("%s comes to %s %s", system, s.Text(write), unit)
	if busy := d.spread(v, system, results.CoresUsed); busy.N > 0 {
		text += fmt.Sprintf(" with %s of %d cores busy", plot.Short(busy.Median), d.first(v).Provenance.Cores)
		if clients := d.spread(v, system, results.GeneratorShare); clients.N > 0 {
			text += fmt.Sprintf(", %s of that for the clients", percent(clients.Median))
		}
	}
	return text
}

func kernelMemory(d Data, v variant) string {
	kernel := d.spread(v, own, results.Kernel)
	if kernel.N == 0 {
		return ""
	}
	return "the kernel holds another " + kernel.Text(grouped) + " bytes for each end of a connection"
}

// brokersClient describes the fastest of a broker's own clients.
func brokersClient(d Data, v variant) string {
	best := ""
	for _, system := range yardsticks.Of(v.params.Work) {
		if s := d.spread(v, system, results.Throughput); s.N > 0 && (best == "" || s.Median > d.spread(v, best, results.Throughput).Median) {
			best = system
		}
	}
	if best == "" {
		return ""
	}
	return d.yardstick(v, best, results.Throughput, grouped, "messages/s")
}

// own is this project's system.
const own = systems.OwnName

func grouped(v float64) string { return plot.Grouped(v) }

// precise writes milliseconds to the microsecond.
func precise(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }

func percent(v float64) string { return fmt.Sprintf("%.0f %%", v*100) }

func thousands(v float64) string { return plot.Short(v / 1e3) }

func millions(v float64) string { return plot.Short(v / 1e6) }

package report

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
	"github.com/shoal-go/shoal/internal/plot"
)

// view is how the results of a scenario are shown.
type view struct {
	// title is a text as fill has it.
	title   string
	columns []column
	// limit is how the machine, or the link, limits all systems of a variant. nil: unknown.
	limit limit
	chart bars // without a file: none
}

// limit describes a limit in one variant, "" where it is unknown.
type limit func(Data, variant) string

// fill replaces the names of parameters, in braces, by their values.
func fill(text string, p results.Params) string {
	followers := "no subscribers"
	if p.Connections > 0 {
		followers = fmt.Sprintf("one subscriber for each of %s uploads", plot.Grouped(p.Channels))
	}
	pace := fmt.Sprintf("%s messages a second", plot.Grouped(p.Rate))
	if p.Load > 0 {
		pace = fmt.Sprintf("%g of its capacity", p.Load)
	}
	share := func(v float64) string { return fmt.Sprintf("%g %%", v*100) }
	return strings.NewReplacer(
		"{connections}", plot.Grouped(p.Connections), "{uploads}", plot.Grouped(p.Channels), "{messages}", plot.Grouped(p.Messages),
		"{publishers}", plot.Grouped(p.Publishers), "{rate}", plot.Grouped(p.Rate), "{load}", fmt.Sprint(p.Load), "{pace}", pace,
		"{stalled}", share(p.Stalled), "{kbits}", plot.Grouped(p.Kbits), "{delay}", fmt.Sprint(p.DelayMS), "{loss}", share(p.Loss),
		"{bytes}", plot.Grouped(p.Bytes), "{work}", p.Work, "{followers}", followers,
	).Replace(text)
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
		title: "S1 burst: {connections} connections follow one upload, {messages} messages back to back", columns: burstColumns,
		limit: yardstick("joined-write", results.Throughput, grouped, "delivered messages/s"),
		chart: bars{"s1-throughput", "Bursts to all", "delivered messages per second", results.Throughput},
	},
	"S2": {
		title: "S2 single: {connections} connections follow one upload, one message at a time", columns: singleColumns,
		limit: yardstick("write-loop", results.Throughput, grouped, "delivered messages/s"),
	},
	"S3": {
		title:   "S3 unicast: {connections} connections, each with an upload of its own, {messages} messages round-robin",
		columns: burstColumns, limit: yardstick("write-loop", results.Throughput, grouped, "delivered messages/s"),
	},
	"S4": {
		title:   "S4 latency: {connections} connections, {load} of the write loop's capacity, {stalled} stalled",
		columns: latencyColumns, limit: yardstick("write-loop", results.P99, plot.Short, "ms at the 99th percentile"),
	},
	"S5": {
		title: "S5 memory: {connections} connections, idle",
		columns: []column{
			{"bytes per connection", results.PerConnection, grouped}, {"all memory / connections", results.Resident, grouped},
			{"in the kernel, bytes per connection", results.Kernel, grouped},
		},
		limit: kernelMemory,
	},
	"S6": {
		title: "S6 storm: {connections} connections connect, authenticate and subscribe at once",
		columns: []column{
			{"connections/s", results.ConnectRate, grouped}, {"p50 ms until subscribed", results.ReadyP50, plot.Short},
			{"p99 ms until subscribed", results.ReadyP99, plot.Short}, {"server CPU µs/connection", results.ConnectCPU, grouped}, share, cores,
		},
		limit: yardstick("gws-upgrade", results.ConnectRate, grouped, "connections/s"),
	},
	results.Nodes: {
		title:   "S9 nodes: through {work}, {uploads} uploads, {publishers} in flight",
		columns: append([]column{perSecond}, nodeColumns...), limit: brokersClient,
	},
	results.NodeLatency: {
		title:   "S9 latency: through {work}, {pace}",
		columns: append(append([]column{perSecond}, append(p50(plot.Short), late)...), nodeColumns...),
		limit:   yardstick(own, results.Late, plot.Short, "ms of delay before a message is published"),
	},
	results.Fresh: {
		title: "S10 freshness: one client behind {kbits} kbit/s, {delay} ms each way, {loss} loss; {rate} states of {bytes} B a second",
		columns: []column{
			{"age p50, s", results.P50, thousands}, {"age p99, s", results.P99, thousands}, {"states received", results.Messages, grouped},
			{"of those published", results.Received, percent}, {"KB received", results.ReceivedBytes, thousands},
			{"connection ended after, s", results.Lasted, thousands}, {"with close code", results.CloseCode, grouped},
		},
		limit: throughLink,
	},
	results.Direct: {
		title: "S11 shortest way: one process, {rate} messages a second to {connections} subscribers",
		columns: []column{
			{"p50 ms from the call", results.CallP50, precise}, {"p99 ms", results.CallP99, precise}, {"p99.9 ms", results.CallP999, precise},
			{"p50 ms from the plan", results.P50, precise}, {"p99 ms", results.P99, precise}, {"p99.9 ms", results.P999, precise}, late,
		},
		limit: yardstick("gws-direct", results.CallP50, precise, "ms from the call"),
	},
	results.Intake: {
		title: "S12 intake: {publishers} publishers, {work}, {messages} messages a request, {followers}",
		columns: []column{
			{"published messages/s", results.Throughput, grouped}, {"p50 ms of a request", results.P50, plot.Short},
			{"p99 ms", results.P99, plot.Short}, cpu, {"received by subscribers", results.Received, percent},
			{"publishers' share of the CPU", results.GeneratorShare, percent}, cores,
		},
		limit: emptyRequests,
	},
}

// throughLink says how many of S10's states the link can carry.
func throughLink(_ Data, v variant) string {
	// A frame has a header of 4 bytes, and the packets of TCP carry 1,460 of 1,500 bytes.
	const header, carried = 4, 1460. / 1500
	fit := float64(v.params.Kbits) * 1000 / 8 * carried / float64(v.params.Bytes+header)
	return fmt.Sprintf("at most %s of the %g states a second fit through the link", plot.Short(min(fit, v.params.Rate)), v.params.Rate)
}

// emptyRequests is the figure of S12's yardstick, which has no subscribers, in requests of the same size.
func emptyRequests(d Data, v variant) string {
	v.params.Connections = 0
	if p := &v.params; p.Work == results.RedisPublish || p.Work == results.NATSPublish {
		p.Work = results.SinglePost
	}
	return yardstick("net-http", results.Throughput, grouped, "messages/s in requests that a handler of net/http only reads")(d, v)
}

// yardstick returns a limit that is a figure of a system that does only the unavoidable part of the work, and its use of the
// processors.
func yardstick(system string, metric results.Metric, write func(float64) string, unit string) limit {
	return func(d Data, v variant) string {
		s := d.spread(v, system, metric)
		if s.N == 0 {
			return system + ", which shows it, was not measured"
		}
		text := fmt.Sprintf("%s comes to %s %s", system, s.Text(write), unit)
		if busy := d.spread(v, system, results.CoresUsed); busy.N > 0 {
			text += fmt.Sprintf(" with %s of %d cores busy", plot.Short(busy.Median), d.of(v)[0].Provenance.Cores)
			if clients := d.spread(v, system, results.GeneratorShare); clients.N > 0 {
				text += fmt.Sprintf(", %s of that for the clients", percent(clients.Median))
			}
		}
		return text
	}
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
	best, most := "", 0.
	for _, system := range yardsticks.Of(v.params.Work) {
		if median := d.spread(v, system, results.Throughput).Median; median > most {
			best, most = system, median
		}
	}
	if best == "" {
		return ""
	}
	return yardstick(best, results.Throughput, grouped, "messages/s")(d, v)
}

// own is this project's system.
const own = systems.OwnName

func grouped(v float64) string { return plot.Grouped(v) }

// precise writes milliseconds to the microsecond.
func precise(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }

func percent(v float64) string { return fmt.Sprintf("%.0f %%", v*100) }

func thousands(v float64) string { return plot.Short(v / 1e3) }

func millions(v float64) string { return plot.Short(v / 1e6) }

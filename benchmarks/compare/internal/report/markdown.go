package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
)

// Markdown writes the tables: target against measured, then each scenario's figures, then failures and where
// all this comes from.
func (d Data) Markdown(w io.Writer) error {
	var b strings.Builder
	d.targetTable(&b)
	for _, v := range d.variants() {
		if _, ok := sweepOf(v.scenario); !ok {
			d.scenarioTable(&b, v)
		}
	}
	for _, s := range sweeps() {
		d.sweepTable(&b, s)
	}
	d.failures(&b)
	d.provenance(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (d Data) targetTable(b *strings.Builder) {
	all := d.verdicts()
	if !slices.ContainsFunc(all, verdict.known) {
		return
	}
	b.WriteString("## Targets\n\nRatios are made repetition by repetition: median (least to most).\n\n" +
		"| | target | at | measured | met |\n| --- | --- | --- | --- | --- |\n")
	for _, v := range all {
		bound := "at most "
		if v.least {
			bound = "at least "
		}
		measured, met := "–", "not measured"
		if v.known() {
			measured = v.measured.text(short)
			met = map[bool]string{true: "yes", false: "**no**"}[v.met()]
		}
		fmt.Fprintf(b, "| %s | %s | %s%s | %s | %s |\n", v.scenario, v.describe(), bound, short(v.bound), measured, met)
	}
}

// column is one of a scenario's table.
type column struct {
	title  string
	metric results.Metric
	write  func(float64) string
}

// columnsOf lists the columns of a scenario.
func columnsOf(scenario string) []column {
	share := column{"generator's share of the CPU", results.GeneratorShare, percent}
	cores := column{"cores busy", results.CoresUsed, short}
	throughput := column{"delivered messages/s", results.Throughput, grouped}
	cpu := column{"server CPU ns/message", results.ServerCPU, grouped}
	switch scenario {
	case "S2":
		return []column{throughput, {"ms to the last receiver", results.ToLast, short}, cpu, share, cores}
	case "S4":
		return []column{
			{"p50 ms", results.P50, short}, {"p99 ms", results.P99, short}, {"p99.9 ms", results.P999, short}, cpu,
			{"published late by at most, ms", results.Late, short}, {"closed", results.Closed, grouped}, share, cores,
		}
	case results.Nodes:
		return append([]column{{"messages/s", results.Throughput, grouped}}, nodeColumns()...)
	case results.NodeLatency:
		return append([]column{
			{"messages/s", results.Throughput, grouped}, {"p50 ms", results.P50, short}, {"p99 ms", results.P99, short},
			{"p99.9 ms", results.P999, short}, {"published late by at most, ms", results.Late, short},
		}, nodeColumns()...)
	case "S5":
		return []column{
			{"bytes per connection", results.PerConnection, grouped},
			{"all memory / connections", results.Resident, grouped},
			{"in the kernel, bytes per connection", results.Kernel, grouped},
		}
	case results.Fresh:
		return []column{
			{"age p50, s", results.P50, seconds}, {"age p99, s", results.P99, seconds}, {"states received", results.Messages, grouped},
			{"of those published", results.Received, percent}, {"KB received", results.ReceivedBytes, thousands},
			{"connection ended after, s", results.Lasted, seconds}, {"with close code", results.CloseCode, grouped},
		}
	case results.Intake:
		return []column{
			{"published messages/s", results.Throughput, grouped}, {"p50 ms of a request", results.P50, short},
			{"p99 ms", results.P99, short}, cpu, {"received by subscribers", results.Received, percent},
			{"publishers' share of the CPU", results.GeneratorShare, percent}, cores,
		}
	case results.Direct:
		return []column{
			{"p50 ms from the call", results.CallP50, precise}, {"p99 ms", results.CallP99, precise},
			{"p99.9 ms", results.CallP999, precise}, {"p50 ms from the plan", results.P50, precise},
			{"p99 ms", results.P99, precise}, {"p99.9 ms", results.P999, precise},
			{"published late by at most, ms", results.Late, short},
		}
	case "S6":
		return []column{
			{"connections/s", results.ConnectRate, grouped}, {"p50 ms until subscribed", results.ReadyP50, short},
			{"p99 ms until subscribed", results.ReadyP99, short},
			{"server CPU µs/connection", results.ConnectCPU, grouped}, share, cores,
		}
	}
	return []column{
		throughput, cpu, {"messages/write", results.PerWrite, short},
		{"resident bytes/connection", results.Resident, grouped}, share, cores,
	}
}

// nodeColumns are the processor time of the processes and the number of repeated reads.
func nodeColumns() []column {
	return []column{
		{"CPU ns/message, publishing", results.PublisherCPU, grouped}, {"broker", results.BrokerCPU, grouped},
		{"receiving", results.ReceiverCPU, grouped}, {"cores busy", results.CoresUsed, short},
		{"recoveries", results.Recovered, grouped},
	}
}

// titleOf describes the measurement of a variant.
func titleOf(v variant) string {
	p := v.params
	clients := grouped(float64(p.Connections)) + " connections"
	switch v.scenario {
	case "S1":
		return fmt.Sprintf("S1 burst: %s follow one upload, %d messages back to back", clients, p.Messages)
	case "S2":
		return fmt.Sprintf("S2 single: %s follow one upload, one message at a time", clients)
	case "S3":
		return fmt.Sprintf("S3 unicast: %s, each with an upload of its own, %s messages round-robin", clients,
			grouped(float64(p.Messages)))
	case "S4":
		return fmt.Sprintf("S4 latency: %s, %g of the write loop's capacity, %g %% stalled", clients, p.Load, p.Stalled*100)
	case "S5":
		return "S5 memory: " + clients + ", idle"
	case "S6":
		return "S6 storm: " + clients + " connect, authenticate and subscribe at once"
	case results.Fresh:
		return fmt.Sprintf("S10 freshness: one client behind %s kbit/s, %d ms each way, %g %% loss; %g states of %s B a second",
			grouped(float64(p.Kbits)), p.DelayMS, p.Loss*100, p.Rate, grouped(float64(p.Bytes)))
	case results.Intake:
		return fmt.Sprintf("S12 intake: %d publishers, %s, %d messages a request, %s", p.Publishers, p.Work, p.Messages, followers(p))
	case results.Direct:
		return fmt.Sprintf("S11 shortest way: one process, %s messages a second to %s subscribers", grouped(p.Rate), grouped(float64(p.Connections)))
	case results.Nodes:
		return fmt.Sprintf("S9 nodes: through %s, %s uploads, %s in flight", p.Work, grouped(float64(p.Channels)),
			grouped(float64(p.Publishers)))
	case results.NodeLatency:
		if p.Load > 0 {
			return fmt.Sprintf("S9 latency: through %s, %g of its capacity", p.Work, p.Load)
		}
		return fmt.Sprintf("S9 latency: through %s, %s messages a second", p.Work, grouped(p.Rate))
	}
	return v.scenario
}

// followers names the number of subscribers in S12.
func followers(p results.Params) string {
	if p.Connections == 0 {
		return "no subscribers"
	}
	return fmt.Sprintf("one subscriber for each of %s uploads", grouped(float64(p.Channels)))
}

func (d Data) scenarioTable(b *strings.Builder, v variant) {
	title := titleOf(v)
	if v.params.TLS {
		title += ", over TLS 1.3"
	}
	fmt.Fprintf(b, "\n## %s\n\n| system |", title)
	columns := columnsOf(v.scenario)
	for _, c := range columns {
		fmt.Fprintf(b, " %s |", c.title)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(columns)) + "\n")
	for _, system := range d.systemsOf(v) {
		fmt.Fprintf(b, "| %s |", system)
		for _, c := range columns {
			fmt.Fprintf(b, " %s |", spreadOf(d.series(v, system, c.metric)).text(c.write))
		}
		b.WriteString("\n")
	}
	if limit := d.limit(v); limit != "" {
		fmt.Fprintf(b, "\nLimit of the machine: %s.\n", limit)
	}
}

func (d Data) failures(b *strings.Builder) {
	title := "\n## Failed\n\n"
	for _, r := range d.records {
		if r.Error != "" {
			fmt.Fprintf(b, "%s- %s, %s, repetition %d: %s\n", title, r.Scenario, r.System, r.Repeat,
				strings.Join(strings.Fields(r.Error), " "))
			title = ""
		}
	}
}

func (d Data) provenance(b *strings.Builder) {
	b.WriteString("\n## Where this comes from\n\n")
	var origins []string
	for _, r := range d.records {
		p := r.Provenance
		dirty := ""
		if p.Dirty {
			dirty = ", with uncommitted changes"
		}
		origin := fmt.Sprintf("- run %s: commit %.12s%s; %s, %d cores, GOMAXPROCS %d; %s %s, %s; `%s`\n", r.Run, p.Commit,
			dirty, p.CPU, p.Cores, p.GOMAXPROCS, p.OS, p.Kernel, p.Go, strings.Join(p.Command, " "))
		if !slices.Contains(origins, origin) {
			origins = append(origins, origin)
		}
	}
	var versions []string
	for _, r := range d.records {
		version := fmt.Sprintf("- %s: %s %s\n", r.System, r.Provenance.Module, r.Provenance.Version)
		if !slices.Contains(versions, version) {
			versions = append(versions, version)
		}
	}
	b.WriteString(strings.Join(append(origins, versions...), ""))
}

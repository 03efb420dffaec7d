package runner

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
)

// progress prints the current measurement, its result and the remaining number, one line a
// measurement. It is used from one goroutine.
type progress struct {
	out   io.Writer
	begun time.Time
	total int
	done  int
}

func newProgress(out io.Writer, total int) *progress {
	fmt.Fprintf(out, "%d measurements, each with processes of its own\n", total)
	return &progress{out: out, begun: time.Now(), total: total}
}

func (p *progress) calibrates(times int) {
	p.total += times
	fmt.Fprintln(p.out, "the rates of S4 go by what the write loop delivers in S2, which is measured first")
}

func (p *progress) begins(t trial) {
	fmt.Fprintf(p.out, "[%*d/%d] %s %-18s %-31s #%d  ", width(p.total), p.done+1, p.total, t.name(), t.entry.Name,
		variant(t.params), t.repeat)
}

func (p *progress) ends(r results.Record) {
	p.done++
	came := figures(r.Metrics)
	if r.Error != "" {
		came = "FAILED: " + strings.TrimSpace(came+" "+r.Error)
	}
	fmt.Fprintf(p.out, "%s  (%s left)\n", came, p.left())
}

func (p *progress) skipped(t trial) {
	p.done++
	fmt.Fprintf(p.out, "[%*d/%d] %s %-18s left out, it has failed %d times\n", width(p.total), p.done, p.total,
		t.name(), t.entry.Name, mostFailures)
}

// left is about how long the rest will take.
func (p *progress) left() time.Duration {
	each := time.Since(p.begun) / time.Duration(p.done)
	return (each * time.Duration(p.total-p.done)).Round(time.Second)
}

func width(n int) int { return len(fmt.Sprint(n)) }

// variant tells the variants of a scenario apart.
func variant(p results.Params) string {
	text := fmt.Sprintf("%d clients", p.Connections)
	if p.Publishers > 0 {
		text = fmt.Sprintf("%d publishers", p.Publishers)
	}
	if p.Load > 0 || p.Rate > 0 {
		text += fmt.Sprintf(" %.0f/s", p.Rate)
	}
	if p.Stalled > 0 {
		text += fmt.Sprintf(" %g%% stalled", p.Stalled*100)
	}
	if p.Messages > 1 {
		text += fmt.Sprintf(" ×%d", p.Messages)
	}
	if p.Servers > 0 {
		text += fmt.Sprintf(" %d servers", p.Servers)
	}
	if p.Work != "" {
		text += " " + p.Work
	}
	if p.Procs > 0 {
		text += fmt.Sprintf(" %d cores", p.Procs)
	}
	return text
}

// figures writes the figures that matter at once.
func figures(m results.Figures) string {
	var parts []string
	for _, f := range []struct {
		metric results.Metric
		format string
		scale  float64
	}{
		{results.Throughput, "%.0f msg/s", 1}, {results.P50, "p50 %.2f ms", 1}, {results.P99, "p99 %.2f ms", 1},
		{results.P999, "p99.9 %.2f ms", 1}, {results.ServerCPU, "%.0f ns/msg", 1}, {results.PublisherCPU, "%.1f µs at the publisher", 1e-3},
		{results.BrokerCPU, "%.1f µs at the broker", 1e-3}, {results.ReceiverCPU, "%.1f µs at the receiver", 1e-3},
		{results.ToLast, "%.1f ms to the last", 1}, {results.PerConnection, "%.1f KB/connection", 1e-3},
		{results.Kernel, "%.1f KB in the kernel", 1e-3}, {results.PerReceiver, "%.1f ns/receiver", 1},
		{results.Operations, "%.0f operations/s", 1}, {results.RegistryConnection, "%.0f B/connection", 1},
		{results.RegistrySubscription, "%.0f B/subscription", 1}, {results.Heap, "%.1f MB of heap", 1e-6}, {results.Pause, "pause %.2f ms", 1},
		{results.ConnectRate, "%.0f connections/s", 1}, {results.ReadyP99, "p99 %.0f ms until subscribed", 1},
		{results.GeneratorShare, "generator %.0f%%", 100},
	} {
		if v, ok := m[f.metric]; ok {
			parts = append(parts, fmt.Sprintf(f.format, v*f.scale))
		}
	}
	return strings.Join(parts, ", ")
}

package runner

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/plot"

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

// figures writes all figures with their names.
func figures(m results.Figures) string {
	var parts []string
	for _, metric := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %s", metric, plot.Short(m[metric])))
	}
	return strings.Join(parts, ", ")
}

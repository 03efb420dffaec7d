package report

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
)

// shown is one figure of a chart, as a bar per system.
type shown struct {
	metric results.Metric
	name   string // where a chart shows several
	scale  float64
}

// design describes the chart of a scenario's variant.
type design struct {
	scenario, file, title, unit string
	// less: less is better.
	less  bool
	shown []shown
	by    int // which of them orders the systems
}

// designs lists the charts. The first part of a file's name is the scenario; where it has several variants,
// the parameters that distinguishes them is added.
func designs() []design {
	one := func(m results.Metric, scale float64) []shown { return []shown{{m, "", scale}} }
	const cost = "server CPU, ns per delivered message"
	cpu := one(results.ServerCPU, 1)
	return []design{
		{"S1", "s1-throughput", "Bursts to all", "delivered messages per second", false, one(results.Throughput, 1), 0},
		{"S1", "s1-cpu", "Bursts to all: what a message costs", cost, true, cpu, 0},
		{"S2", "s2-last", "One message to all", "milliseconds to the last receiver", true, one(results.ToLast, 1), 0},
		{"S2", "s2-cpu", "One message to all: what it costs", cost, true, cpu, 0},
		{"S3", "s3-throughput", "To each one its own", "delivered messages per second", false, one(results.Throughput, 1), 0},
		{"S4", "s4-latency", "Latency at a fixed rate", "milliseconds from the planned send time", true, []shown{
			{results.P50, "p50", 1}, {results.P99, "p99", 1}, {results.P999, "p99.9", 1},
		}, 1},
		{"S5", "s5-memory", "Idle connections", "KB of memory per connection", true, one(results.PerConnection, 1e-3), 0},
		{"S6", "s6-connect", "Everyone comes at once", "connections per second", false, one(results.ConnectRate, 1), 0},
		{"S6", "s6-ready", "Everyone comes at once: how long it takes", "milliseconds until subscribed", true, []shown{
			{results.ReadyP50, "p50", 1}, {results.ReadyP99, "p99", 1},
		}, 1},
	}
}

// Charts draws all results as SVG files in a folder and returns the files' names.
func (d Data) Charts(folder string) ([]string, error) {
	var names []string
	var all []error
	save := func(name string, svg func() ([]byte, error)) {
		name = filepath.Join(folder, name+".svg")
		image, err := svg()
		if err == nil {
			err = os.WriteFile(name, image, 0o644) //nolint:gosec // results are for everyone
		}
		if err != nil {
			all = append(all, fmt.Errorf("report: %s: %w", name, err))
			return
		}
		names = append(names, name)
	}
	for _, v := range d.variants() {
		for _, design := range designs() {
			if chart := d.chart(design, v); design.scenario == v.scenario && len(chart.rows) > 0 {
				save(design.file+d.suffix(v), chart.svg)
			}
		}
	}
	for _, s := range sweeps() {
		for _, g := range s.graphs {
			if lineChart := d.lineChart(s, g); len(lineChart.curves) > 0 {
				save(g.file, lineChart.svg)
			}
		}
	}
	return names, errors.Join(all...)
}

// suffix tells the files of a scenario's variants apart by the parameters in which they differ.
func (d Data) suffix(v variant) string {
	var text string
	differs := func(of func(results.Params) string) {
		for _, other := range d.variants() {
			if other.scenario == v.scenario && of(other.params) != of(v.params) {
				text += "-" + of(v.params)
				return
			}
		}
	}
	differs(func(p results.Params) string { return fmt.Sprintf("%d", p.Connections) })
	if v.params.TLS {
		text += "-tls"
	}
	differs(func(p results.Params) string { return fmt.Sprintf("load%.0f", p.Load*100) })
	differs(func(p results.Params) string { return fmt.Sprintf("stalled%.0f", p.Stalled*100) })
	return text
}

// chart returns the chart's contents, with the best system on top.
func (d Data) chart(design design, v variant) chart {
	c := chart{pictureFrame: pictureFrame{title: design.title}, unit: design.unit}
	for _, s := range design.shown {
		c.legend = append(c.legend, s.name)
	}
	at := slices.IndexFunc(d.records, func(r results.Record) bool { return variantOf(r) == v })
	c.origin = originOf(d.records[at])
	c.subtitle = titleOf(v) + "; medians, the lines are the least and the most; " +
		map[bool]string{true: "less", false: "more"}[design.less] + " is better"
	for _, system := range d.systemsOf(v) {
		r := row{name: system, kind: d.kindOf(system)}
		for _, s := range design.shown {
			values := d.series(v, system, s.metric)
			for repeat := range values {
				values[repeat] *= s.scale
			}
			if len(values) > 0 {
				r.bars = append(r.bars, spreadOf(values))
			}
		}
		if len(r.bars) == len(design.shown) {
			c.rows = append(c.rows, r)
		}
	}
	slices.SortStableFunc(c.rows, func(a, b row) int {
		order := cmp.Compare(b.bars[design.by].median, a.bars[design.by].median)
		if design.less {
			order = -order
		}
		return order
	})
	return c
}

// originOf says in one line where a result comes from.
func originOf(r results.Record) string {
	p := r.Provenance
	dirty := ""
	if p.Dirty {
		dirty = "+"
	}
	return strings.Join([]string{
		r.Time.Format("2006-01-02"), fmt.Sprintf("%.9s%s", p.Commit, dirty), p.CPU, fmt.Sprintf("%d cores", p.Cores), p.Go,
		"Linux " + p.Kernel,
	}, " · ")
}

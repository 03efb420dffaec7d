package report

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/internal/plot"
)

// bars is the chart of a scenario: one figure of each system, of which more is better.
type bars struct {
	file, title, unit string
	metric            results.Metric
}

// Charts draws all results as SVG files in a folder and returns the files' names.
func (d Data) Charts(folder string) ([]string, error) {
	var names []string
	var all []error
	save := func(name string, texts plot.Caption, chart plot.Chart) {
		name = filepath.Join(folder, name+".svg")
		names = append(names, name)
		all = append(all, os.WriteFile(name, []byte(plot.SVG(texts, chart)), 0o644)) //nolint:gosec // results are for everyone
	}
	for _, v := range d.variants() {
		b := views[v.scenario].chart
		if chart := d.bars(b, v); len(chart.Rows) > 0 {
			file := b.file
			if v.params.TLS {
				file += "-tls"
			}
			save(file, caption(d.of(v)[0], b.title, v.title()+"; medians, the lines are the least and the most; more is better"), chart)
		}
	}
	for _, s := range sweeps {
		if lines := d.lines(s); len(lines.Curves) > 0 {
			save(s.graph.file, caption(d.swept(s)[0], s.graph.title, "medians; the upright lines are the least and the most"), lines)
		}
	}
	return names, errors.Join(all...)
}

// kinds are the colours of the kinds of systems.
var kinds = map[systems.Kind]plot.Colour{
	systems.Own:       {Name: "this project", Colour: "#0b7285"},
	systems.Peer:      {Name: "peer", Colour: "#e89b4c"},
	systems.Yardstick: {Name: "limit", Colour: "#adb5bd"},
}

// bars returns a chart, with the best system on top.
func (d Data) bars(b bars, v variant) plot.Bars {
	c := plot.Bars{Unit: b.unit, Key: []plot.Colour{kinds[systems.Own], kinds[systems.Peer], kinds[systems.Yardstick]}}
	for _, system := range distinct(d.of(v), systemOf) {
		if s := d.spread(v, system, b.metric); s.N > 0 {
			c.Rows = append(c.Rows, plot.Row{Name: system, Colour: kinds[d.kindOf(system)].Colour, Bar: s})
		}
	}
	slices.SortStableFunc(c.Rows, func(a, b plot.Row) int { return cmp.Compare(b.Bar.Median, a.Bar.Median) })
	return c
}

// caption returns the texts around the chart of a record, with the origin of the record.
func caption(r results.Record, title, subtitle string) plot.Caption {
	p := r.Provenance
	dirty := ""
	if p.Dirty {
		dirty = "+"
	}
	return plot.Caption{Title: title, Subtitle: subtitle, Origin: strings.Join([]string{
		r.Time.Format("2006-01-02"), fmt.Sprintf("%.9s%s", p.Commit, dirty), p.CPU, fmt.Sprintf("%d cores", p.Cores), p.Go,
		"Linux " + p.Kernel,
	}, " · ")}
}

// lines returns the chart of a sweep.
func (d Data) lines(s sweep) plot.Lines {
	g := s.graph
	l := plot.Lines{Y: plot.Axis{Title: g.unit}}
	var values []float64
	for _, line := range g.lines {
		if c := d.curve(s, line); len(c.Points) > 1 {
			l.Curves = append(l.Curves, c)
			for _, p := range c.Points {
				values = append(values, p.X)
			}
		}
	}
	if len(l.Curves) == 0 {
		return l
	}
	slices.Sort(values)
	l.X = plot.Parameter(s.along, slices.Compact(values), s.logarithmic, s.write)
	if g.marks != nil {
		l.Marks = g.marks(d.swept(s)[0].Provenance)
	}
	return l
}

// curve is a line of a graph, with a point for each value for which there is a figure.
func (d Data) curve(s sweep, l line) plot.Curve {
	c := plot.Curve{Name: l.name}
	values := map[float64]map[int]float64{} // by parameter and repetition
	for _, r := range d.swept(s) {
		y, ok := r.Metrics[l.metric]
		if x := s.of(r.Params); ok && r.Error == "" && l.shows(r.System, r.Params) {
			if values[x] == nil {
				values[x] = map[int]float64{}
			}
			values[x][r.Repeat] = y
		}
	}
	all := slices.Sorted(maps.Keys(values))
	for _, x := range all {
		y := spreadOf(values[x])
		if s.graph.relative {
			y = ratios(values[x], values[all[0]])
		}
		c.Points = append(c.Points, plot.Point{X: x, Y: y})
	}
	return c
}

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

	"github.com/shoal-go/shoal/internal/plot"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// shown is one figure of a chart, as a bar per system.
type shown struct {
	metric results.Metric
	name   string // where a chart shows several
	scale  float64
}

// design describes the chart of a scenario's variant. The first part of a file's name is the scenario; where it has several
// variants, the parameters in which they differ are added.
type design struct {
	file, title, unit string
	// less: less is better.
	less  bool
	shown []shown
	by    int // which of them orders the systems
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
		for _, design := range views[v.scenario].charts {
			if bars := d.bars(design, v); len(bars.Rows) > 0 {
				save(design.file+d.suffix(v), caption(d.first(v), design.title, v.title()+
					"; medians, the lines are the least and the most; "+map[bool]string{true: "less", false: "more"}[design.less]+" is better"), bars)
			}
		}
	}
	for _, s := range sweeps {
		for _, g := range s.graphs {
			if lines := d.lines(s, g); len(lines.Curves) > 0 {
				save(g.file, caption(d.swept(s)[0], g.title, "medians; the upright lines are the least and the most"), lines)
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

// kinds are the colours of the kinds of systems.
var kinds = map[systems.Kind]plot.Colour{
	systems.Own:       {Name: "this project", Colour: "#0b7285"},
	systems.Peer:      {Name: "peer", Colour: "#e89b4c"},
	systems.Yardstick: {Name: "limit", Colour: "#adb5bd"},
}

// bars returns a chart, with the best system on top.
func (d Data) bars(design design, v variant) plot.Bars {
	c := plot.Bars{Unit: design.unit, Key: []plot.Colour{kinds[systems.Own], kinds[systems.Peer], kinds[systems.Yardstick]}}
	for _, s := range design.shown {
		c.Legend = append(c.Legend, s.name)
	}
	for _, system := range d.systemsOf(v) {
		r := plot.Row{Name: system, Colour: kinds[d.kindOf(system)].Colour}
		for _, s := range design.shown {
			values := d.series(v, system, s.metric)
			for repeat := range values {
				values[repeat] *= s.scale
			}
			if len(values) > 0 {
				r.Bars = append(r.Bars, spreadOf(values))
			}
		}
		if len(r.Bars) == len(design.shown) {
			c.Rows = append(c.Rows, r)
		}
	}
	slices.SortStableFunc(c.Rows, func(a, b plot.Row) int {
		order := cmp.Compare(b.Bars[design.by].Median, a.Bars[design.by].Median)
		if design.less {
			order = -order
		}
		return order
	})
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
func (d Data) lines(s sweep, g graph) plot.Lines {
	l := plot.Lines{Y: plot.Axis{Title: g.unit}}
	var values []float64
	for _, line := range g.lines {
		if c := d.curve(s, g, line); len(c.Points) > 1 {
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
func (d Data) curve(s sweep, g graph, l line) plot.Curve {
	c := plot.Curve{Name: l.name}
	values := map[float64]map[int]float64{} // by parameter and repetition
	for _, r := range d.swept(s) {
		y, ok := r.Metrics[l.metric]
		if x := s.of(r.Params); ok && r.Error == "" && l.of(r) {
			if values[x] == nil {
				values[x] = map[int]float64{}
			}
			values[x][r.Repeat] = y
		}
	}
	all := slices.Sorted(maps.Keys(values))
	for _, x := range all {
		y := spreadOf(values[x])
		if g.relative {
			y = ratios(values[x], values[all[0]])
		}
		c.Points = append(c.Points, plot.Point{X: x, Y: y})
	}
	return c
}

package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/sinks"
)

// swept returns the records of a sweep.
func (d Data) swept(s sweep) []results.Record {
	return slices.DeleteFunc(slices.Clone(d.records), func(r results.Record) bool { return r.Scenario != s.name })
}

// sweepTable writes the measurements at each value.
func (d Data) sweepTable(w io.Writer, s sweep) {
	records := d.swept(s)
	if len(records) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## Sweep %s: %s\n\n| | %s |", s.name, s.title, s.along.title)
	for _, c := range s.columns {
		fmt.Fprintf(w, " %s |", c.title)
	}
	fmt.Fprint(w, "\n| --- | --- |"+strings.Repeat(" --- |", len(s.columns))+"\n")
	var rows []results.Record // one for each
	for _, r := range records {
		if !slices.ContainsFunc(rows, func(o results.Record) bool { return o.System == r.System && variantOf(o) == variantOf(r) }) {
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(a, b results.Record) int {
		return cmp.Or(cmp.Compare(s.label(a), s.label(b)), cmp.Compare(s.along.of(a.Params), s.along.of(b.Params)))
	})
	for _, r := range rows {
		fmt.Fprintf(w, "| %s | %s |", s.label(r), s.along.write(s.along.of(r.Params)))
		for _, c := range s.columns {
			fmt.Fprintf(w, " %s |", spreadOf(d.series(variantOf(r), r.System, c.metric)).text(c.write))
		}
		fmt.Fprintln(w)
	}
}

func (s sweep) label(r results.Record) string {
	if s.apart == nil {
		return r.System
	}
	return r.System + ", " + s.apart(r.Params)
}

// curve is a line with its values.
type curve struct {
	name   string
	points []coordinate // from the left
}

type coordinate struct {
	x float64
	y spread
}

// mark is a value of the axis that is worth a note. Outside the axis it is not shown.
type mark struct {
	x    float64
	text string
}

// curves are the lines of a graph for which there are values.
func (d Data) curves(s sweep, g graph) []curve {
	var all []curve
	for _, l := range g.lines {
		c := curve{name: l.name}
		values := map[float64]map[int]float64{} // by parameter and repetition
		for _, r := range d.swept(s) {
			y, ok := r.Metrics[l.metric]
			if x := s.along.of(r.Params); ok && r.Error == "" && l.of(r) {
				if values[x] == nil {
					values[x] = map[int]float64{}
				}
				values[x][r.Repeat] = y
			}
		}
		for x, of := range values {
			c.points = append(c.points, coordinate{x, spreadOf(of)})
		}
		slices.SortFunc(c.points, func(a, b coordinate) int { return cmp.Compare(a.x, b.x) })
		if g.relative && len(c.points) > 0 {
			first := values[c.points[0].x]
			for i, p := range c.points {
				c.points[i].y = ratios(values[p.x], first)
			}
		}
		if len(c.points) > 1 {
			all = append(all, c)
		}
	}
	return all
}

// fullCaches marks the value from which on the memory of a broadcast exceeds a core's caches.
func fullCaches(p results.Provenance) []mark {
	return []mark{
		{float64(p.L2) / float64(sinks.Touched), "L2 is full"},
		{float64(p.L3) / float64(sinks.Touched), "L3 is full"},
	}
}

// allCores marks the machine's number of cores.
func allCores(p results.Provenance) []mark { return []mark{{float64(p.Cores), "all cores"}} }

// Package report makes tables and charts of results.
package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// Data are results to be reported: of each scenario those of one run, so that everything that is compared was
// measured interleaved. It is not changed once it has been made.
type Data struct {
	records []results.Record
}

// Select picks the results of a run, or with "" those of the newest run of each scenario. A run that measured
// only a yardstick in a scenario, to find the rates of another one, does not belong to that scenario as long as
// there is a better one. The error says that there are no results.
func Select(all []results.Record, run string) (Data, error) {
	type key struct {
		scenario string
		tls      bool
	}
	newest, full := map[key]string{}, map[key]string{} // to the run
	for _, r := range all {                            // the oldest first
		if run != "" && r.Run != run {
			continue
		}
		k := key{r.Scenario, r.Params.TLS}
		newest[k] = r.Run
		if r.Kind != string(systems.Yardstick) {
			full[k] = r.Run
		}
	}
	maps.Copy(newest, full)
	if len(newest) == 0 {
		return Data{}, fmt.Errorf("report: there are no results of the run %q", run)
	}
	d := Data{slices.DeleteFunc(slices.Clone(all), func(r results.Record) bool { return r.Run != newest[key{r.Scenario, r.Params.TLS}] })}
	order := systems.Names()
	slices.SortStableFunc(d.records, func(a, b results.Record) int {
		return cmp.Or(
			cmp.Compare(len(a.Scenario), len(b.Scenario)), cmp.Compare(a.Scenario, b.Scenario),
			a.Params.Compare(b.Params),
			cmp.Compare(slices.Index(order, a.System), slices.Index(order, b.System)),
			cmp.Compare(a.Repeat, b.Repeat),
		)
	})
	return d, nil
}

// variant is a scenario with its parameters. It has no rate where the rate follows from an earlier measurement.
type variant struct {
	scenario string
	params   results.Params
}

func variantOf(r results.Record) variant {
	p := r.Params
	if p.Load > 0 {
		p.Rate = 0
	}
	return variant{r.Scenario, p}
}

// variants lists the measured variants, in order.
func (d Data) variants() []variant {
	var all []variant
	for _, r := range d.records {
		if v := variantOf(r); !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}

// systemsOf lists who was measured in a variant, in order.
func (d Data) systemsOf(v variant) []string {
	var names []string
	for _, r := range d.records {
		if variantOf(r) == v && !slices.Contains(names, r.System) {
			names = append(names, r.System)
		}
	}
	return names
}

// kindOf returns the role of a system, according to the results.
func (d Data) kindOf(system string) systems.Kind {
	at := slices.IndexFunc(d.records, func(r results.Record) bool { return r.System == system })
	if at < 0 {
		return ""
	}
	return systems.Kind(d.records[at].Kind)
}

// series returns the figures of a system by repetition. Failed measurements are left out.
func (d Data) series(v variant, system string, metric results.Metric) map[int]float64 {
	values := map[int]float64{}
	for _, r := range d.records {
		if value, ok := r.Metrics[metric]; ok && r.Error == "" && r.System == system && variantOf(r) == v {
			values[r.Repeat] = value
		}
	}
	return values
}

// spread summarises a number of values.
type spread struct {
	n                int
	median, min, max float64
}

func spreadOf(values map[int]float64) spread {
	sorted := make([]float64, 0, len(values))
	for _, v := range values {
		sorted = append(sorted, v)
	}
	slices.Sort(sorted)
	n := len(sorted)
	if n == 0 {
		return spread{}
	}
	return spread{n, (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1]}
}

// ratios divides repetition by repetition: a disturbance affected both.
func ratios(of, against map[int]float64) spread {
	each := map[int]float64{}
	for repeat, a := range of {
		if b, ok := against[repeat]; ok && b > 0 {
			each[repeat] = a / b
		}
	}
	return spreadOf(each)
}

// Package report makes tables and charts of results.
package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/internal/plot"
)

// Data are results to be reported: of each scenario those of one run, so that everything that is compared was
// measured interleaved. It is not changed once it has been made.
type Data struct{ records []results.Record }

// Select picks the results of a run, or with "" those of the newest run of each part: a scenario, over TLS or not, and of
// S10 each link, of S9 each broker and of S12 each way of publishing, so that these can be measured one after the other. A
// run that measured only a yardstick, to find the rates of another scenario, is not selected as long as there is a better
// one. The error says that there are no results.
func Select(all []results.Record, run string) (Data, error) {
	type key struct {
		scenario, work string
		tls            bool
		kbits, delay   int
	}
	keyOf := func(r results.Record) key {
		p := r.Params
		return key{r.Scenario, p.Work, p.TLS, p.Kbits, p.DelayMS}
	}
	newest, full := map[key]string{}, map[key]string{} // to the run
	for _, r := range all {                            // the oldest first
		if run != "" && r.Run != run {
			continue
		}
		k := keyOf(r)
		newest[k] = r.Run
		if r.Kind != string(systems.Yardstick) {
			full[k] = r.Run
		}
	}
	maps.Copy(newest, full)
	if len(newest) == 0 {
		return Data{}, fmt.Errorf("report: there are no results of the run %q", run)
	}
	d := Data{slices.DeleteFunc(slices.Clone(all), func(r results.Record) bool { return r.Run != newest[keyOf(r)] })}
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

// distinct lists the values that records have, in order.
func distinct[V comparable](records []results.Record, of func(results.Record) V) (all []V) {
	for _, r := range records {
		if v := of(r); !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}

// variants lists the measured variants.
func (d Data) variants() []variant { return distinct(d.records, variantOf) }

// where returns the records for which a condition holds.
func (d Data) where(condition func(results.Record) bool) (some []results.Record) {
	for _, r := range d.records {
		if condition(r) {
			some = append(some, r)
		}
	}
	return some
}

// of returns the records of a variant.
func (d Data) of(v variant) []results.Record {
	return d.where(func(r results.Record) bool { return variantOf(r) == v })
}

// swept returns the records of a sweep.
func (d Data) swept(s sweep) []results.Record {
	return d.where(func(r results.Record) bool { return r.Scenario == s.name })
}

func systemOf(r results.Record) string { return r.System }

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
	for _, r := range d.of(v) {
		if value, ok := r.Metrics[metric]; ok && r.Error == "" && r.System == system {
			values[r.Repeat] = value
		}
	}
	return values
}

// spread summarises the figures of a system over the repetitions.
func (d Data) spread(v variant, system string, metric results.Metric) plot.Spread {
	return spreadOf(d.series(v, system, metric))
}

func spreadOf(values map[int]float64) plot.Spread {
	return plot.SpreadOf(slices.Collect(maps.Values(values)))
}

// ratios divides repetition by repetition: a disturbance affected both.
func ratios(of, against map[int]float64) plot.Spread {
	each := map[int]float64{}
	for repeat, a := range of {
		if b, ok := against[repeat]; ok && b > 0 {
			each[repeat] = a / b
		}
	}
	return spreadOf(each)
}

// Package runner measures: it starts a server and its clients as two processes, executes a scenario and records the results,
// system after system, interleaved and repeated.
package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/internal/plot"
)

// Common are the flags of all measurements. The defaults are set by each command.
type Common struct {
	Repeat   int           `default:"${repeat}" within:"1 to 1000000" help:"How often to measure everything."`
	Bytes    int           `default:"256" within:"256 to 32768" help:"Size of a message."`
	Measure  time.Duration `default:"${measure}" within:"1ns to 24h" help:"How long a run at full speed lasts at least."`
	Duration time.Duration `default:"${duration}" within:"1ns to 24h" help:"How long a run at a fixed rate lasts (S4, S9 latency, S10)."`
	Patience time.Duration `default:"60s" within:"1ms to 24h" help:"How long a single step may take."`
	Out      string        `placeholder:"DIR" help:"Where the results go (benchmarks/results of the repository)."`
	Profiles string        `placeholder:"DIR" help:"Where to put a processor profile of each server (none are taken)."`
}

// Clients are the flags of measurements over sockets.
type Clients struct {
	Connections int `default:"5000" within:"1 to 1000000" help:"Clients, where no other flag says how many."`
	Burst       int `default:"40" within:"1 to 100000" help:"Messages that are published at once."`
}

// Config describes a measurement.
type Config struct {
	Common
	Flags

	// Folder is where results are written, Program this program, and Progress receives a line for each step.
	Folder, Program string
	Progress        io.Writer
}

// Flags are the flags of one command.
type Flags interface {
	// prepare makes sure that the programs that are measured are installed, and returns their versions by module.
	prepare(ctx context.Context, progress io.Writer) (versions map[string]string, err error)
	// entries lists the systems that may take part.
	entries() []systems.Entry
	// scenarios lists the scenarios in their order.
	scenarios(Common) []scenario
}

// scenario describes a scenario, a sweep, or one of the parts of S9.
type scenario struct {
	name string
	// measure measures one trial.
	measure func(*measurement)
	// takes reports whether a system takes part in a variant.
	takes func(systems.Entry, results.Params) bool
	// variants are the parameters of the trials.
	variants []results.Params
}

// over returns copies of parameters, one for each value of a field, which keeps the last one.
func over[V any](p *results.Params, field *V, values []V) (all []results.Params) {
	for _, *field = range values {
		all = append(all, *p)
	}
	return all
}

// named returns the scenarios of these names, all without any.
func named(all []scenario, names []string) []scenario {
	return slices.DeleteFunc(all, func(s scenario) bool { return len(names) > 0 && !slices.Contains(names, s.name) })
}

// only returns a predicate for the systems of these names.
func only(names ...string) func(systems.Entry, results.Params) bool {
	return func(e systems.Entry, _ results.Params) bool { return slices.Contains(names, e.Name) }
}

// trial is one measurement of one system.
type trial struct {
	scenario scenario
	entry    systems.Entry
	repeat   int // from 1
	params   results.Params
}

// plan returns all trials in the order in which they are made. Systems and variants alternate within a repetition: a
// temporary disturbance of the machine affects them all. Each repetition begins with another system: the after-effects of a
// measurement, such as thousands of sockets that have just been closed, do not always affect the same one.
func (c Config) plan() (all []trial) {
	for _, s := range c.scenarios(c.Common) {
		for repeat := 1; repeat <= c.Repeat; repeat++ {
			for _, p := range s.variants {
				taking := slices.DeleteFunc(c.entries(), func(e systems.Entry) bool { return !s.takes(e, p) })
				for i := range taking {
					all = append(all, trial{s, taking[(i+repeat-1)%len(taking)], repeat, p})
				}
			}
		}
	}
	return all
}

// Run makes all measurements, and returns the name of the file with the results. A failure of one system is recorded
// like a result, and the rest continues; one that has failed twice in a scenario is left out of the rest of it. The
// error is that of ctx, or names a missing program, or says that results cannot be written.
func Run(ctx context.Context, c Config) (name string, err error) {
	versions, err := c.prepare(ctx, c.Progress)
	if err != nil {
		return "", err
	}
	trials := c.plan()
	if len(trials) == 0 {
		return "", errors.New("runner: there is nothing to measure: none of the systems takes part in the scenarios")
	}
	here := results.Here(ctx)
	id := time.Now().UTC().Format("20060102T150405Z") + "-" + here.Commit[:min(len(here.Commit), 8)]
	file, err := results.Create(c.Folder, id)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	fmt.Fprintf(c.Progress, "%d measurements, each with processes of its own\n", len(trials))
	r := &run{Config: c, id: id, here: here, file: file, versions: versions, begun: time.Now(), total: len(trials)}
	return file.Name(), r.all(ctx, trials)
}

// run is the state that is kept from trial to trial. It is used from one goroutine.
type run struct {
	Config
	id   string
	here results.Provenance
	file *os.File
	// versions are those of the programs that are not a part of this one, by module.
	versions map[string]string
	records  []results.Record // so far
	begun    time.Time
	// total is the number of measurements, and done how many of them have been made or left out.
	total, done int
}

// all makes the trials, but for those of a system that has failed too often in the scenario.
func (r *run) all(ctx context.Context, trials []trial) error {
	const mostFailures = 2
	for _, t := range trials {
		if r.failures(t) >= mostFailures {
			fmt.Fprintf(r.Progress, "%s  left out, it has failed %d times\n", r.line(t), mostFailures)
			r.done++
			continue
		}
		if t.params.Load > 0 && t.params.Publishers == 0 && r.capacity(t.params) == 0 {
			if err := r.calibrate(ctx, t.params); err != nil {
				return err
			}
		}
		if err := r.try(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// failures counts those of the trial's system in its scenario, with its work.
func (r *run) failures(t trial) (n int) {
	for _, record := range r.records {
		if record.Error != "" && record.Scenario == t.scenario.name && record.System == t.entry.Name && record.Params.Work == t.params.Work {
			n++
		}
	}
	return n
}

// try makes one measurement and records it, or its failure. The error is that of ctx or of the file.
func (r *run) try(ctx context.Context, t trial) error {
	if p := &t.params; p.Load > 0 {
		if p.Rate = p.Load * r.capacity(*p); p.Publishers == 0 {
			p.Rate /= float64(max(p.Connections, 1)) // all of them receive each message
		} else {
			p.Rate = max(p.Rate, 1)
		}
	}
	fmt.Fprint(r.Progress, r.line(t))
	metrics, err := measure(ctx, r.Config, t)
	record := results.Record{
		Schema: results.Schema, Run: r.id, Time: time.Now().UTC(), Scenario: t.scenario.name, System: t.entry.Name,
		Kind: string(t.entry.Kind), Repeat: t.repeat, Params: t.params, Metrics: metrics, Provenance: r.here.Of(t.entry.Module),
	}
	if version, ok := r.versions[t.entry.Module]; ok {
		record.Provenance.Version = version
	}
	if err != nil {
		record.Error = err.Error()
	}
	r.done++
	left := time.Since(r.begun) / time.Duration(r.done) * time.Duration(r.total-r.done)
	fmt.Fprintf(r.Progress, "  %s  (%s left)\n", outcome(record), left.Round(time.Second))
	if ctx.Err() != nil {
		return fmt.Errorf("runner: interrupted, the measurements so far are in %s: %w", r.file.Name(), ctx.Err())
	}
	r.records = append(r.records, record)
	return results.Add(r.file, record)
}

// capacity is the measured throughput that the rate of a trial is a share of: between nodes the broker's with its best number of
// publishers, else the write loop's in S2. 0: it has not been measured.
func (r *run) capacity(p results.Params) (most float64) {
	measured := map[results.Params][]float64{}
	for _, record := range r.records {
		fits := record.Scenario == Single && record.System == writeLoop
		if p.Publishers > 0 {
			fits = record.Scenario == results.Nodes && record.System == systems.OwnName && record.Params.Work == p.Work
		}
		if fits && record.Error == "" {
			measured[record.Params] = append(measured[record.Params], record.Metrics[results.Throughput])
		}
	}
	for _, values := range measured {
		most = max(most, plot.SpreadOf(values).Median)
	}
	return most
}

// calibrate measures the write loop's throughput in S2.
func (r *run) calibrate(ctx context.Context, p results.Params) error {
	const times = 3
	entry, err := systems.Find(writeLoop)
	if err != nil {
		return err
	}
	r.total += times
	fmt.Fprintln(r.Progress, "the rates of S4 go by what the write loop delivers in S2, which is measured first")
	p.Load, p.Stalled, p.Messages = 0, 0, 1
	for repeat := 1; repeat <= times; repeat++ {
		if err := r.try(ctx, trial{scenario{name: Single, measure: (*measurement).throughput}, entry, repeat, p}); err != nil {
			return err
		}
		if failed := r.records[len(r.records)-1].Error; failed != "" {
			return fmt.Errorf("runner: the write loop, from which the rates of S4 are derived, has failed: %s", failed)
		}
	}
	return nil
}

// line describes a trial, with its number among all.
func (r *run) line(t trial) string {
	total := fmt.Sprint(r.total)
	return fmt.Sprintf("[%*d/%s] %s %-18s #%d %s", len(total), r.done+1, total, t.scenario.name, t.entry.Name, t.repeat,
		variant(t.params))
}

// variant writes parameters as results have them.
func variant(p results.Params) string {
	text, _ := json.Marshal(p) // has no field that cannot be encoded
	return strings.NewReplacer(`"`, "", "{", "", "}", "", ",", " ").Replace(string(text))
}

// outcome writes all figures with their names, and the failure.
func outcome(record results.Record) string {
	var parts []string
	if record.Error != "" {
		parts = append(parts, "FAILED: "+record.Error)
	}
	for _, metric := range slices.Sorted(maps.Keys(record.Metrics)) {
		parts = append(parts, fmt.Sprintf("%s %s", metric, plot.Short(record.Metrics[metric])))
	}
	return strings.Join(parts, ", ")
}

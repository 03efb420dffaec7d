package runner

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
)

// Run measures everything, and returns the name of the file with the results. A failure of one system is
// written down like a result, and the rest goes on; one that has failed twice in a scenario is left out of the
// rest of it. The error is that of ctx, or says that the configuration makes no sense, or that results cannot
// be written.
func Run(ctx context.Context, c Config) (name string, err error) {
	if err := c.validate(); err != nil {
		return "", err
	}
	given := c.Centrifugo
	if c.Centrifugo, err = c.findCentrifugo(ctx); err != nil {
		return "", err
	}
	trials, err := c.plan()
	if err != nil {
		return "", err
	}
	if len(trials) == 0 {
		return "", errors.New("runner: there is nothing to measure: none of the systems takes part in the scenarios")
	}
	versions, err := c.prepare(ctx)
	if err != nil {
		return "", err
	}
	if given == "" {
		versions[systems.CentrifugoModule] = systems.CentrifugoVersion
	} else {
		versions[systems.CentrifugoModule] = given
	}
	here := results.Here(ctx)
	id := time.Now().UTC().Format("20060102T150405Z") + "-" + here.Commit[:min(len(here.Commit), 8)]
	file, err := results.Create(c.Results, id)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	r := &run{
		config: c, id: id, here: here, file: file,
		progress: newProgress(c.Progress, len(trials)), failures: map[string]int{},
		nodes: map[results.Params][]float64{}, versions: versions,
	}
	return file.Name(), r.all(ctx, trials)
}

// findCentrifugo returns the path of Centrifugo's program: the given one, the installed one, or one that is installed now
// because it is asked for by name. "": it does not take part.
func (c Config) findCentrifugo(ctx context.Context) (string, error) {
	if c.Centrifugo != "" {
		program, err := exec.LookPath(c.Centrifugo)
		if err != nil {
			return "", fmt.Errorf("runner: --centrifugo: %w", err)
		}
		return filepath.Abs(program)
	}
	program, installed := yardsticks.Installed("centrifugo", systems.CentrifugoVersion)
	if installed || !slices.Contains(c.Systems, "centrifugo") && !slices.Contains(c.Systems, "centrifugo-history") {
		return onlyIf(installed, program), nil
	}
	fmt.Fprintf(c.Progress, "installing %s %s, which takes minutes; --centrifugo names another program\n",
		systems.CentrifugoModule, systems.CentrifugoVersion)
	program, err := yardsticks.Install(ctx, systems.CentrifugoModule, "centrifugo", systems.CentrifugoVersion)
	if err != nil {
		err = fmt.Errorf("runner: centrifugo is not installed and cannot be: %w", err)
	}
	return program, err
}

func onlyIf(condition bool, text string) string {
	if condition {
		return text
	}
	return ""
}

// run is the state that is kept from trial to trial. It is used from one goroutine.
type run struct {
	config   Config
	id       string
	here     results.Provenance
	file     *results.File
	progress *progress
	// failures counts by scenario or sweep, work, and system.
	failures map[string]int
	// capacities are the delivered messages per second of the write loop in S2, by number of connections.
	capacities []float64
	// nodes are the messages per second between nodes, by broker and publishers.
	nodes map[results.Params][]float64
	// versions are those of the clients that are not a part of this program, by module.
	versions map[string]string
}

// mostFailures of a system in a scenario are enough to know.
const mostFailures = 2

func (r *run) all(ctx context.Context, trials []trial) error {
	for _, t := range trials {
		key := t.name() + t.params.Work + t.entry.Name
		if r.failures[key] >= mostFailures {
			r.progress.skipped(t)
			continue
		}
		if t.scenario == Latency && len(r.capacities) == 0 {
			if err := r.calibrate(ctx); err != nil {
				return err
			}
		}
		record := r.try(ctx, t)
		if ctx.Err() != nil {
			return fmt.Errorf("runner: interrupted, what was measured so far is in %s: %w", r.file.Name(), ctx.Err())
		}
		if err := r.file.Add(record); err != nil {
			return err
		}
		if record.Error != "" {
			r.failures[key]++
		}
		r.note(record)
	}
	return nil
}

// try makes one measurement.
func (r *run) try(ctx context.Context, t trial) results.Record {
	if t.scenario == Latency {
		t.params.Rate = t.params.Load * median(r.capacities) / float64(t.params.Connections)
	}
	if t.scenario == NodeLatency && t.params.Load > 0 {
		t.params.Rate = max(t.params.Load*r.nodeCapacity(t.params.Work), 1)
	}
	r.progress.begins(t)
	metrics, err := measure(ctx, r.config, t)
	record := results.Record{
		Schema:     results.Schema,
		Run:        r.id,
		Time:       time.Now().UTC(),
		Scenario:   t.name(),
		System:     t.entry.Name,
		Kind:       string(t.entry.Kind),
		Repeat:     t.repeat,
		Params:     t.params,
		Metrics:    metrics,
		Provenance: r.here.Of(t.entry.Module),
	}
	if version, ok := r.versions[t.entry.Module]; ok {
		record.Provenance.Version = version
	}
	if err != nil {
		record.Error = err.Error()
	}
	r.progress.ends(record)
	return record
}

// measure makes one measurement, with processes of its own.
func measure(ctx context.Context, c Config, t trial) (map[results.Metric]float64, error) {
	switch t.scenario {
	case inProcess:
		return withoutSockets(ctx, c, t)
	case Latency:
		return measureSession(ctx, c, t, (*session).latency)
	case Memory:
		return measureSession(ctx, c, t, (*session).memory)
	case Storm:
		return measureSession(ctx, c, t, (*session).storm)
	case Fresh:
		return measureFresh(ctx, c, t)
	case Direct:
		return measureSession(ctx, c, t, (*session).direct)
	case Intake:
		return measureIntake(ctx, c, t)
	case Nodes, NodeLatency:
		return measureNodes(ctx, c, t)
	}
	return measureGroup(ctx, c, t)
}

// measureSession measures one server with its clients.
func measureSession(
	ctx context.Context, c Config, t trial, how func(*session, context.Context) (map[results.Metric]float64, error),
) (m map[results.Metric]float64, err error) {
	s, err := begin(ctx, c, t)
	if err != nil {
		return nil, err
	}
	defer func() { err = ended(s, err) }()
	return how(s, ctx)
}

// ended ends the processes of a measurement that came to err, which it returns, or that they did not end well.
func ended(processes interface {
	end() error
	kill()
}, err error,
) error {
	if err != nil {
		processes.kill()
		return err
	}
	if err := processes.end(); err != nil {
		return fmt.Errorf("runner: it was measured, but did not end well: %w", err)
	}
	return nil
}

// Yardsticks: the rates of S4 are shares of the write loop's throughput.
const (
	writeLoop   = "write-loop"
	joinedWrite = "joined-write"
)

// note keeps the results that later trials depend on.
func (r *run) note(record results.Record) {
	if record.Scenario == Single && record.System == writeLoop && record.Error == "" {
		r.capacities = append(r.capacities, record.Metrics[results.Throughput])
	}
	if record.Scenario == Nodes && record.System == systems.OwnName && record.Error == "" {
		r.nodes[record.Params] = append(r.nodes[record.Params], record.Metrics[results.Throughput])
	}
}

// nodeCapacity is the measured throughput of a broker with its best number of publishers.
func (r *run) nodeCapacity(broker string) (most float64) {
	for p, values := range r.nodes {
		if p.Work == broker {
			most = max(most, median(values))
		}
	}
	return most
}

// calibrate measures the write loop's throughput in S2, unless this run has measured it.
func (r *run) calibrate(ctx context.Context) error {
	const times = 3
	entry, err := systems.Find(writeLoop)
	if err != nil {
		return err
	}
	r.progress.calibrates(times)
	for repeat := 1; repeat <= times; repeat++ {
		record := r.try(ctx, trial{scenario: Single, entry: entry, repeat: repeat, params: r.config.variants(Single)[0]})
		if record.Error != "" {
			return fmt.Errorf("runner: the write loop, by which the rates of S4 go, has failed: %s", record.Error)
		}
		if err := r.file.Add(record); err != nil {
			return err
		}
		r.note(record)
	}
	return nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

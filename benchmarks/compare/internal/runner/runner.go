package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/shoal-go/shoal/internal/plot"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
)

// Run makes all measurements, and returns the name of the file with the results. A failure of one system is recorded
// like a result, and the rest continues; one that has failed twice in a scenario is left out of the rest of it. The
// error is that of ctx, or says that the configuration is invalid, or that results cannot be written.
func Run(ctx context.Context, c Config) (name string, err error) {
	if err := c.validate(); err != nil {
		return "", err
	}
	versions, err := c.prepare(ctx)
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
	r := &run{
		Config: c, id: id, here: here, file: file, versions: versions,
		progress: newProgress(c.Progress, len(trials)), failures: map[string]int{}, capacities: map[results.Params][]float64{},
	}
	return file.Name(), r.all(ctx, trials)
}

// prepare makes sure that the programs that are measured are installed, and returns their versions by module.
func (c Config) prepare(ctx context.Context) (versions map[string]string, err error) {
	versions = map[string]string{}
	if c.Nodes != nil && c.Nodes.Yardsticks {
		versions[yardsticks.NATSModule], versions[yardsticks.RedisModule] = yardsticks.NATSVersion, yardsticks.RedisVersion(ctx)
		_, err = yardsticks.NATSProgram(ctx, c.Progress)
	}
	if c.Scenarios != nil {
		versions[systems.CentrifugoModule], err = c.findCentrifugo(ctx)
	}
	return versions, err
}

// findCentrifugo sets the path of Centrifugo's program: the given one, the installed one, or one that is installed now
// because it is named. "": it does not take part. It returns its version.
func (c Config) findCentrifugo(ctx context.Context) (version string, err error) {
	s := c.Scenarios
	if given := s.Centrifugo; given != "" {
		program, err := exec.LookPath(given)
		if err != nil {
			return "", fmt.Errorf("runner: --centrifugo: %w", err)
		}
		s.Centrifugo, err = filepath.Abs(program)
		return given, err
	}
	program, installed := yardsticks.Installed("centrifugo", systems.CentrifugoVersion)
	if !installed {
		if !slices.Contains(s.System, "centrifugo") && !slices.Contains(s.System, "centrifugo-history") {
			return "", nil
		}
		if program, err = yardsticks.Install(ctx, c.Progress, systems.CentrifugoModule, "centrifugo", systems.CentrifugoVersion); err != nil {
			return "", fmt.Errorf("runner: centrifugo cannot be installed, --centrifugo names another program: %w", err)
		}
	}
	s.Centrifugo = program
	return systems.CentrifugoVersion, nil
}

// run is the state that is kept from trial to trial. It is used from one goroutine.
type run struct {
	Config
	id       string
	here     results.Provenance
	file     *os.File
	progress *progress
	// failures counts by scenario or sweep, work, and system.
	failures map[string]int
	// capacities are measured messages per second on which later trials depend: between nodes by parameters, and delivered by
	// the write loop in S2 without any.
	capacities map[results.Params][]float64
	// versions are those of the programs that are not a part of this one, by module.
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
		if t.scenario == Latency && len(r.capacities[results.Params{}]) == 0 {
			if err := r.calibrate(ctx); err != nil {
				return err
			}
		}
		failed, err := r.try(ctx, t)
		if err != nil {
			return err
		}
		if failed != "" {
			r.failures[key]++
		}
	}
	return nil
}

// try makes one measurement and records it. The error is that of ctx or of the file; failed explains why the measurement
// has failed, "" if it has not.
func (r *run) try(ctx context.Context, t trial) (failed string, err error) {
	if t.params.Load > 0 {
		t.params.Rate = t.params.Load * plot.SpreadOf(r.capacities[results.Params{}]).Median / float64(max(t.params.Connections, 1))
		if t.scenario == results.NodeLatency {
			t.params.Rate = max(t.params.Load*r.nodeCapacity(t.params.Work), 1)
		}
	}
	r.progress.begins(t)
	metrics, err := measure(ctx, r.Config, t)
	record := results.Record{
		Schema: results.Schema, Run: r.id, Time: time.Now().UTC(), Scenario: t.name(), System: t.entry.Name,
		Kind: string(t.entry.Kind), Repeat: t.repeat, Params: t.params, Metrics: metrics, Provenance: r.here.Of(t.entry.Module),
	}
	if version, ok := r.versions[t.entry.Module]; ok {
		record.Provenance.Version = version
	}
	if err != nil {
		record.Error = err.Error()
	}
	r.progress.ends(record)
	if ctx.Err() != nil {
		return "", fmt.Errorf("runner: interrupted, the measurements so far are in %s: %w", r.file.Name(), ctx.Err())
	}
	r.note(record)
	return record.Error, results.Add(r.file, record)
}

// note keeps the results that later trials depend on.
func (r *run) note(record results.Record) {
	throughput := record.Metrics[results.Throughput]
	switch {
	case record.Error != "":
	case record.Scenario == Single && record.System == writeLoop:
		r.capacities[results.Params{}] = append(r.capacities[results.Params{}], throughput)
	case record.Scenario == results.Nodes && record.System == systems.OwnName:
		r.capacities[record.Params] = append(r.capacities[record.Params], throughput)
	}
}

// nodeCapacity is the measured throughput of a broker with its best number of publishers.
func (r *run) nodeCapacity(broker string) (most float64) {
	for p, values := range r.capacities {
		if p.Work == broker {
			most = max(most, plot.SpreadOf(values).Median)
		}
	}
	return most
}

// calibrate measures the write loop's throughput in S2.
func (r *run) calibrate(ctx context.Context) error {
	const times = 3
	entry, err := systems.Find(writeLoop)
	if err != nil {
		return err
	}
	p := r.params()
	p.Messages = 1
	r.progress.calibrates(times)
	for repeat := 1; repeat <= times; repeat++ {
		failed, err := r.try(ctx, trial{Single, "", (*measurement).throughput, entry, repeat, p})
		if err != nil {
			return err
		}
		if failed != "" {
			return fmt.Errorf("runner: the write loop, from which the rates of S4 are derived, has failed: %s", failed)
		}
	}
	return nil
}

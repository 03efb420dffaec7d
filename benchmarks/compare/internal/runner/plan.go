package runner

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
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

package runner

import (
	"cmp"
	"slices"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// trial is one measurement of one system.
type trial struct {
	// scenario is the scenario that is executed, and sweep the sweep that it belongs to, "" for the scenario itself.
	scenario, sweep string
	entry           systems.Entry
	repeat          int // from 1
	params          results.Params
}

// name is its name in the results.
func (t trial) name() string { return cmp.Or(t.sweep, t.scenario) }

// plan returns all trials in the order in which they are made. Systems and variants alternate within a
// repetition: a temporary disturbance of the machine affects them all. Each repetition begins with another system:
// the after-effects of a measurement, such as thousands of sockets that have just been closed, affect now this one,
// now
// that.
func (c Config) plan() ([]trial, error) {
	if len(c.Sweeps.Names) > 0 {
		return c.sweepPlan()
	}
	if len(c.Nodes.Brokers) > 0 {
		return c.nodePlan()
	}
	var trials []trial
	for _, scenario := range Scenarios() {
		// The link of S10 needs the rights of root: it is measured by name only.
		if len(c.Scenarios) > 0 && !slices.Contains(c.Scenarios, scenario) || len(c.Scenarios) == 0 && scenario == Fresh {
			continue
		}
		if c.TLS && slices.Contains([]string{Fresh, Direct, Intake}, scenario) {
			continue
		}
		entries := c.systemsOf(scenario)
		for repeat := 1; repeat <= c.Repeat; repeat++ {
			for i := range entries {
				entry := entries[(i+repeat-1)%len(entries)]
				for _, params := range c.variants(scenario) {
					if scenario == Intake && !takesIn(entry, params) {
						continue
					}
					params.TLS = c.TLS
					trials = append(trials, trial{scenario: scenario, entry: entry, repeat: repeat, params: params})
				}
			}
		}
	}
	return trials, nil
}

// systemsOf lists who takes part in a scenario.
func (c Config) systemsOf(scenario string) []systems.Entry {
	return slices.DeleteFunc(systems.All(), func(e systems.Entry) bool {
		if len(c.Systems) > 0 && !slices.Contains(c.Systems, e.Name) || e.Command != "" && c.Centrifugo == "" {
			return true
		}
		switch scenario {
		case Storm:
			return e.Part != systems.Everywhere && e.Part != systems.StormOnly
		case Fresh:
			return e.Part != systems.Everywhere || e.Kind == systems.Yardstick
		case Direct:
			return !slices.Contains(directSystems(), e.Name)
		case Intake:
			return e.Publishing == nil
		}
		return e.Part != systems.Everywhere && e.Part != systems.NoStorm
	})
}

// variants lists the parameters with which a scenario is run.
func (c Config) variants(scenario string) []results.Params {
	p := results.Params{Connections: c.Connections, Channels: 1, Bytes: c.Bytes}
	switch scenario {
	case Burst:
		p.Messages = c.Burst
	case Single:
		p.Messages = 1
	case Unicast:
		p.Channels = c.Connections
		p.Messages = c.Connections * c.UnicastRounds
	case Latency:
		var all []results.Params
		for _, p.Load = range c.Loads {
			for _, p.Stalled = range c.Stalled {
				all = append(all, p)
			}
		}
		return all
	case Memory:
		var all []results.Params
		for _, n := range c.Idle {
			all = append(all, results.Params{Connections: n, Channels: n})
		}
		return all
	case Fresh:
		return c.freshVariants()
	case Intake:
		return c.intakeVariants()
	case Direct:
		var all []results.Params
		for _, n := range c.Subscribers {
			all = append(all, results.Params{Connections: n, Channels: 1, Bytes: c.Bytes, Rate: c.Rate})
		}
		return all
	case Storm:
		return []results.Params{{Connections: c.Connections, Channels: c.Connections}}
	}
	return []results.Params{p}
}

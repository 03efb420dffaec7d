package runner

import (
	"cmp"
	"slices"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
)

// trial is one measurement of one system.
type trial struct {
	// scenario is the scenario that is executed, and sweep the sweep that it belongs to, "" for the scenario itself.
	scenario, sweep string
	measure         func(*measurement)
	entry           systems.Entry
	repeat          int // from 1
	params          results.Params
}

// name is its name in the results.
func (t trial) name() string { return cmp.Or(t.sweep, t.scenario) }

// plan returns all trials in the order in which they are made. Systems and variants alternate within a repetition: a
// temporary disturbance of the machine affects them all. Each repetition begins with another system: the after-effects of a
// measurement, such as thousands of sockets that have just been closed, do not always affect the same one.
func (c Config) plan() []trial {
	switch {
	case c.Sweeps != nil:
		return c.sweepPlan()
	case c.Nodes != nil:
		return c.nodePlan()
	}
	var trials []trial
	for _, s := range scenarios() {
		named := slices.Contains(c.Scenarios.Scenario, s.name)
		if !named && (s.byName || len(c.Scenarios.Scenario) > 0) || c.Scenarios.TLS && s.plainOnly {
			continue
		}
		variants := s.variants(*c.Scenarios, c.params())
		entries := slices.DeleteFunc(systems.All(), func(e systems.Entry) bool {
			return len(c.Scenarios.System) > 0 && !slices.Contains(c.Scenarios.System, e.Name) || e.Command != "" && c.Scenarios.Centrifugo == "" ||
				!slices.ContainsFunc(variants, func(p results.Params) bool { return s.takes(e, p) })
		})
		for repeat := 1; repeat <= c.Repeat; repeat++ {
			trials = append(trials, c.repetition(s, entries, variants, repeat)...)
		}
	}
	return trials
}

// repetition returns the trials of one repetition of a scenario.
func (c Config) repetition(s scenario, entries []systems.Entry, variants []results.Params, repeat int) (trials []trial) {
	for i := range entries {
		entry := entries[(i+repeat-1)%len(entries)]
		for _, p := range variants {
			if p.TLS = c.Scenarios.TLS; s.takes(entry, p) {
				trials = append(trials, trial{s.name, "", s.measure, entry, repeat, p})
			}
		}
	}
	return trials
}

// params are the parameters that most trials share.
func (c Config) params() results.Params {
	p := results.Params{Channels: 1, Bytes: c.Bytes}
	switch {
	case c.Scenarios != nil:
		p.Connections = c.Scenarios.Connections
	case c.Sweeps != nil:
		p.Connections = c.Sweeps.Connections
	}
	return p
}

// yardstickTrials returns the trials of S9 of the yardsticks of a broker.
func yardstickTrials(broker string, repeat int, p results.Params) (trials []trial) {
	for _, name := range yardsticks.Of(broker) {
		entry := systems.Entry{Name: name, Kind: systems.Yardstick, Module: yardsticks.ModuleOf(broker)}
		trials = append(trials, trial{results.Nodes, "", (*measurement).yardstick, entry, repeat, p})
	}
	return trials
}

// latencyPublishers is how many publish in turn at a fixed rate, so that one that waits delays no other.
const latencyPublishers = 256

// nodePlan returns the trials of S9. Within a repetition everything alternates, a broker with its yardsticks.
func (c Config) nodePlan() (trials []trial) {
	brokers := c.Nodes.Brokers
	if len(brokers) == 0 {
		brokers = nodes.Brokers()
	}
	own := systems.All()[0]
	for repeat := 1; repeat <= c.Repeat; repeat++ {
		for _, broker := range brokers {
			for _, publishers := range c.Nodes.Publishers {
				p := results.Params{Work: broker, Channels: c.Nodes.Uploads, Bytes: c.Bytes, Publishers: publishers}
				trials = append(trials, trial{results.Nodes, "", (*measurement).nodes, own, repeat, p})
				if c.Nodes.Yardsticks {
					trials = append(trials, yardstickTrials(broker, repeat, p)...)
				}
			}
		}
	}
	for repeat := 1; repeat <= c.Repeat; repeat++ {
		for _, broker := range brokers {
			p := results.Params{Work: broker, Channels: c.Nodes.Uploads, Bytes: c.Bytes, Publishers: latencyPublishers}
			for _, p.Rate = range c.Nodes.Rates {
				trials = append(trials, trial{results.NodeLatency, "", (*measurement).nodes, own, repeat, p})
			}
			p.Rate = 0
			for _, p.Load = range c.Nodes.Share {
				trials = append(trials, trial{results.NodeLatency, "", (*measurement).nodes, own, repeat, p})
			}
		}
	}
	return trials
}

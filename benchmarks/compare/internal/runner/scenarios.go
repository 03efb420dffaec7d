package runner

import (
	"os/exec"
	"slices"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// The scenarios of one server with its clients.
const (
	Burst   = "S1"
	Single  = "S2"
	Unicast = "S3"
	Latency = "S4"
	Memory  = "S5"
	Storm   = "S6"
)

// scenario describes a scenario. Its sweeps, S9 and S9 latency are planned by themselves.
type scenario struct {
	name string
	// measure measures one trial.
	measure func(*measurement)
	// variants lists the parameters of the trials.
	variants func(Scenarios, results.Params) []results.Params
	// takes reports whether a system takes part in a variant.
	takes func(systems.Entry, results.Params) bool
	// byName: it is measured only if it is named.
	byName bool
	// plainOnly: it is not measured over TLS.
	plainOnly bool
}

// scenarios lists the scenarios in their order.
func scenarios() []scenario {
	return []scenario{
		{name: Burst, measure: (*measurement).throughput, takes: connected, variants: func(s Scenarios, p results.Params) []results.Params {
			p.Messages = s.Burst
			return []results.Params{p}
		}},
		{name: Single, measure: (*measurement).throughput, takes: connected, variants: single},
		{name: Unicast, measure: (*measurement).throughput, takes: connected, variants: func(s Scenarios, p results.Params) []results.Params {
			p.Channels, p.Messages = s.Connections, s.Connections*s.UnicastRounds
			return []results.Params{p}
		}},
		{name: Latency, measure: (*measurement).latency, takes: connected, variants: func(s Scenarios, p results.Params) (all []results.Params) {
			for _, p.Load = range s.Share {
				for _, p.Stalled = range s.Stalled {
					all = append(all, p)
				}
			}
			return all
		}},
		{name: Memory, measure: (*measurement).memory, takes: connected, variants: func(s Scenarios, _ results.Params) (all []results.Params) {
			for _, n := range s.Idle {
				all = append(all, results.Params{Connections: n, Channels: n})
			}
			return all
		}},
		{name: Storm, measure: (*measurement).storm, takes: part(systems.StormOnly), variants: func(s Scenarios, _ results.Params) []results.Params {
			return []results.Params{{Connections: s.Connections, Channels: s.Connections}}
		}},
		{name: results.Fresh, measure: (*measurement).fresh, variants: links, byName: true, plainOnly: true, takes: func(e systems.Entry, _ results.Params) bool {
			return e.Part == systems.Everywhere && e.Kind != systems.Yardstick
		}},
		{name: results.Direct, measure: (*measurement).direct, plainOnly: true, takes: func(e systems.Entry, _ results.Params) bool {
			return slices.Contains([]string{systems.OwnName, "gws-direct", "gws", "gorilla", "coder"}, e.Name)
		}, variants: func(s Scenarios, p results.Params) (all []results.Params) {
			p.Rate = s.Rate
			for _, p.Connections = range s.Subscribers {
				all = append(all, p)
			}
			return all
		}},
		{name: results.Intake, measure: (*measurement).intake, variants: ways, takes: takesIn, plainOnly: true},
	}
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios() {
		names = append(names, s.name)
	}
	return names
}

// part returns a predicate for the systems that take part everywhere or in this part.
func part(one systems.Part) func(systems.Entry, results.Params) bool {
	return func(e systems.Entry, _ results.Params) bool { return e.Part == systems.Everywhere || e.Part == one }
}

var connected = part(systems.NoStorm)

func single(_ Scenarios, p results.Params) []results.Params {
	p.Messages = 1
	return []results.Params{p}
}

// links lists the links of S10.
func links(s Scenarios, _ results.Params) (all []results.Params) {
	p := results.Params{Connections: 1, Channels: 1, Bytes: s.StateBytes, Rate: s.States}
	for _, p.Kbits = range s.Kbits {
		for _, delay := range s.Delay {
			for _, p.Loss = range s.Loss {
				p.DelayMS = int(delay.Milliseconds())
				all = append(all, p)
			}
		}
	}
	return all
}

// ways lists the ways of publishing of S12, without subscribers and with one for each upload. Foreign publishers need one: a
// node receives messages from a broker for uploads that have subscribers. Without redis-server the way through Redis is
// left out.
func ways(s Scenarios, base results.Params) (all []results.Params) {
	_, noRedis := exec.LookPath("redis-server")
	for _, p := range []results.Params{
		{Work: results.SinglePost, Messages: 1, Channels: s.Publishers},
		{Work: results.BatchPost, Messages: s.Batch, Channels: s.Publishers},
		{Work: results.ManyPost, Messages: s.Batch, Channels: s.Uploads},
		{Work: results.RedisPublish, Messages: 1, Channels: s.Publishers},
		{Work: results.NATSPublish, Messages: 1, Channels: s.Publishers},
	} {
		if p.Work == results.RedisPublish && noRedis != nil {
			continue
		}
		p.Publishers, p.Bytes = s.Publishers, base.Bytes
		if !foreign(p) {
			all = append(all, p)
		}
		p.Connections = p.Channels
		all = append(all, p)
	}
	return all
}

// foreign: messages are published by way of a broker.
func foreign(p results.Params) bool {
	return p.Work == results.RedisPublish || p.Work == results.NATSPublish
}

// takesIn reports whether a system takes part in a variant of S12. The yardstick has nothing to subscribe to.
func takesIn(e systems.Entry, p results.Params) bool {
	switch {
	case e.Publishing == nil:
		return false
	case foreign(p):
		return e.Kind == systems.Own
	}
	return e.Kind != systems.Yardstick || p.Connections == 0
}

package report

import (
	"fmt"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
	"github.com/shoal-go/shoal/internal/plot"
)

// target is a goal of this project.
type target struct {
	scenario string
	// claim is a text as fill has it. {peer} stands for the best peer, where that is known.
	claim  string
	metric results.Metric
	// against is a system, bestPeer, itself (without stalled clients) or nothing: then the bound is on the
	// figure, not on a ratio.
	against string
	// where restricts it to some variants. nil: those without TLS.
	where func(results.Params) bool
	// least: the bound is a lower one.
	least bool
	bound float64
}

// The references of a target, beside systems.
const (
	nothing  = ""
	bestPeer = "best peer"
	itself   = "itself"
)

// targets are the project's, as its performance goals have them.
var targets = []target{
	{"S1", "delivered messages/s, of the best peer that holds nothing back{peer}", results.Throughput, bestPeer, nil, true, 20},
	{"S1", "delivered messages/s, of joined write", results.Throughput, "joined-write", nil, true, 0.9},
	{"S2", "delivered messages/s, of the write loop", results.Throughput, "write-loop", nil, true, 0.95},
	{"S2", "server CPU per message, of the write loop", results.ServerCPU, "write-loop", nil, false, 1.1},
	{"S3", "delivered messages/s, of the write loop", results.Throughput, "write-loop", nil, true, 0.95},
	{"S3", "server CPU per message, of the write loop", results.ServerCPU, "write-loop", nil, false, 1.1},
	{"S4", "p99 at half of S2's capacity, of the write loop", results.P99, "write-loop", calmHalf, false, 1.2},
	{"S4", "p99 with stalled clients, of that without" + ofStalled, results.P99, itself, stalled, false, 1.2},
	{"S5", "bytes per connection, {connections} connections", results.PerConnection, nothing, nil, false, 1600},
	{"S5", "bytes per connection, of centrifuge, {connections} connections", results.PerConnection, "centrifuge", nil, false, 0.1},
	{"S6", "connections/s, of gws that only upgrades", results.ConnectRate, "gws-upgrade", nil, true, 0.78},
	{"S1", "over TLS: delivered messages/s, of joined write", results.Throughput, "joined-write", secured, true, 0.9},
	{"S2", "over TLS: delivered messages/s, of the write loop", results.Throughput, "write-loop", secured, true, 0.9},
	{"S4", "over TLS: p99 with stalled clients, of that without" + ofStalled, results.P99, itself, securedStalled, false, 1.2},
	{"S5", "over TLS: bytes per connection, of gws, {connections} connections", results.PerConnection, "gws", secured, false, 0.6},
	{results.Nodes, "messages/s, of " + yardsticks.SameStream + inFlight, results.Throughput, yardsticks.SameStream, through(nodes.NATS), true, 0.8},
	{results.Nodes, "messages/s, of " + yardsticks.Stored + inFlight, results.Throughput, yardsticks.Stored, through(nodes.Redis), true, 0.95},
	{results.Fresh, "ms of age p50" + behindLink, results.P50, nothing, slow, false, 1000},
	{results.Fresh, "age p50, of the best peer that stays connected{peer}" + behindLink, results.P50, bestPeer, slow, false, 0.25},
	{results.Direct, "p50, of gws written by the publisher, {connections} subscribers", results.P50, "gws-direct", nil, false, 1.1},
	{results.Direct, "p99, of the best peer{peer}, {connections} subscribers", results.P99, bestPeer, nil, false, 1},
	{results.Intake, "messages/s, of Centrifugo, {work}, {followers}", results.Throughput, "centrifugo", through(results.SinglePost), true, 1.5},
	{results.Intake, "messages/s, of Centrifugo, {work}, {followers}", results.Throughput, "centrifugo", through(results.BatchPost), true, 3},
}

// The ends of claims.
const (
	ofStalled  = " ({stalled} stalled, {load} of the capacity)"
	inFlight   = ", {publishers} in flight"
	behindLink = ", {kbits} kbit/s, {delay} ms, {loss} loss"
)

// slow is the link for which S10 has targets.
func slow(p results.Params) bool { return p.Kbits == 160 }

func secured(p results.Params) bool { return p.TLS }

func securedStalled(p results.Params) bool { return p.TLS && p.Stalled > 0 }

func plain(p results.Params) bool { return !p.TLS }

func through(broker string) func(results.Params) bool {
	return func(p results.Params) bool { return p.Work == broker }
}

func calmHalf(p results.Params) bool { return plain(p) && p.Stalled == 0 && p.Load == 0.5 }

func stalled(p results.Params) bool { return plain(p) && p.Stalled > 0 }

// verdict is the result of a target in one variant.
type verdict struct {
	target
	variant variant
	// reference is the measurement that it was compared with.
	reference string
	measured  plot.Spread
}

// known: the target could be measured.
func (v verdict) known() bool { return v.measured.N > 0 }

// met: the median is within the bound.
func (v verdict) met() bool {
	if v.least {
		return v.measured.Median >= v.bound
	}
	return v.measured.Median <= v.bound
}

// verdicts judges every target in every variant that it holds in.
func (d Data) verdicts() []verdict {
	var all []verdict
	for _, t := range targets {
		if t.where == nil {
			t.where = plain
		}
		for _, v := range d.variants() {
			if v.scenario == t.scenario && t.where(v.params) {
				all = append(all, d.judge(t, v))
			}
		}
	}
	return all
}

func (d Data) judge(t target, v variant) verdict {
	result, base, of := verdict{target: t, variant: v, reference: t.against}, v, d.series(v, own, t.metric)
	switch t.against {
	case nothing:
		result.measured = spreadOf(of)
		return result
	case itself:
		result.reference, base.params.Stalled = own, 0
	case bestPeer:
		result.reference = d.bestPeer(v, t)
	}
	result.measured = ratios(of, d.series(base, result.reference, t.metric))
	return result
}

// bestPeer is the peer with the highest median, or with the lowest where less is better, of those that stay connected
// and hold no messages back.
func (d Data) bestPeer(v variant, t target) string {
	name, best := bestPeer, 0.
	for _, system := range distinct(d.of(v), systemOf) {
		s := d.spread(v, system, t.metric)
		ended := d.spread(v, system, results.Closed).Max > 0
		if d.kindOf(system) == systems.Peer && s.N > 0 && !ended && system != "centrifuge-batched" && (name == bestPeer || (s.Median > best) == t.least) {
			name, best = system, s.Median
		}
	}
	return name
}

// describe names a verdict's claim.
func (v verdict) describe() string {
	peer := ""
	if v.against == bestPeer && v.reference != bestPeer {
		peer = fmt.Sprintf(" (%s)", v.reference)
	}
	return fill(strings.Replace(v.claim, "{peer}", peer, 1), v.variant.params)
}

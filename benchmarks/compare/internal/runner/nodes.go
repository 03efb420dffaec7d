package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
)

// S9: messages published on one node and received on another, at full speed and at a fixed rate.
const (
	Nodes       = results.Nodes
	NodeLatency = results.NodeLatency
)

// NodeOptions select the parts of S9 that are measured.
type NodeOptions struct {
	// Brokers are names. None: S9 is not measured.
	Brokers []string
	// Publishers are how many publish at once, and how many messages the yardsticks have in flight.
	Publishers []int
	// Uploads is how many there are, with a subscriber each.
	Uploads int
	// Rates are in messages per second, Loads shares of the broker's measured throughput.
	Rates, Loads []float64
	// Yardsticks are measured too.
	Yardsticks bool
}

// latencyPublishers is how many publish in turn at a fixed rate, so that one that waits holds nobody up.
const latencyPublishers = 256

// nodePlan returns the trials of S9. Within a repetition everything alternates, a broker with its yardsticks.
func (c Config) nodePlan() ([]trial, error) {
	own, err := systems.Find(systems.OwnName)
	if err != nil {
		return nil, err
	}
	var trials []trial
	for repeat := 1; repeat <= c.Repeat; repeat++ {
		for _, broker := range c.Nodes.Brokers {
			for _, publishers := range c.Nodes.Publishers {
				p := results.Params{Work: broker, Channels: c.Nodes.Uploads, Bytes: c.Bytes, Publishers: publishers}
				for _, entry := range append([]systems.Entry{own}, c.yardsticksOf(broker)...) {
					trials = append(trials, trial{scenario: Nodes, entry: entry, repeat: repeat, params: p})
				}
			}
		}
	}
	for repeat := 1; repeat <= c.Repeat; repeat++ {
		for _, broker := range c.Nodes.Brokers {
			p := results.Params{Work: broker, Channels: c.Nodes.Uploads, Bytes: c.Bytes, Publishers: latencyPublishers}
			for _, p.Rate = range c.Nodes.Rates {
				trials = append(trials, trial{scenario: NodeLatency, entry: own, repeat: repeat, params: p})
			}
			p.Rate = 0
			for _, p.Load = range c.Nodes.Loads {
				trials = append(trials, trial{scenario: NodeLatency, entry: own, repeat: repeat, params: p})
			}
		}
	}
	return trials, nil
}

// yardsticksOf lists the clients that a broker is compared with.
func (c Config) yardsticksOf(broker string) []systems.Entry {
	var names []string
	module := ""
	switch {
	case !c.Nodes.Yardsticks:
	case broker == nodes.NATS:
		names, module = yardsticks.OfNATS(), yardsticks.NATSModule
	case broker == nodes.Redis:
		names, module = yardsticks.OfRedis(), yardsticks.RedisModule
	}
	var all []systems.Entry
	for _, name := range names {
		all = append(all, systems.Entry{Name: name, Kind: systems.Yardstick, Module: module})
	}
	return all
}

// maxRate is more messages per second than any broker brings.
const maxRate = 1e6

// validate refuses invalid options.
func (o NodeOptions) validate() error {
	var all []error
	for _, broker := range o.Brokers {
		if !slices.Contains(nodes.Brokers(), broker) {
			all = append(all, fmt.Errorf("runner: %q is no broker, want some of %v", broker, nodes.Brokers()))
		}
	}
	if len(o.Brokers) == 0 {
		return nil
	}
	for _, n := range o.Publishers {
		if n < 1 || n > nodes.MaxPublishers {
			all = append(all, fmt.Errorf("runner: --publishers is %d, want 1 to %d", n, nodes.MaxPublishers))
		}
	}
	if o.Uploads < 1 || o.Uploads > nodes.MaxUploads {
		all = append(all, fmt.Errorf("runner: --uploads is %d, want 1 to %d", o.Uploads, nodes.MaxUploads))
	}
	for _, rate := range o.Rates {
		if !(rate >= 1 && rate <= maxRate) {
			all = append(all, fmt.Errorf("runner: --rate is %v, want 1 to %v", rate, maxRate))
		}
	}
	return errors.Join(all...)
}

// measureNodes measures S9, with processes of its own.
func measureNodes(ctx context.Context, c Config, t trial) (m map[results.Metric]float64, err error) {
	n, err := beginNodes(ctx, c, t)
	if err != nil {
		return nil, err
	}
	defer func() { err = ended(n, err) }()
	if t.entry.Kind == systems.Yardstick {
		return n.yardstick(ctx)
	}
	if err := n.warm(ctx); err != nil {
		return nil, err
	}
	q := nodes.Request{Do: nodes.Publish, For: c.Measure}
	if t.scenario == NodeLatency {
		q.Do, q.For, q.Rate = nodes.Schedule, c.Duration, t.params.Rate
	}
	before, err := n.look(ctx)
	if err != nil {
		return nil, err
	}
	published, err := n.publish(ctx, q)
	if err != nil {
		return nil, err
	}
	after, err := n.look(ctx)
	if err != nil {
		return nil, err
	}
	return n.figures(published, before, after)
}

// warm publishes for a while, and forgets how long that took.
func (n *nodePair) warm(ctx context.Context) error {
	if _, err := n.publish(ctx, nodes.Request{Do: nodes.Publish, For: max(n.config.Measure/4, time.Millisecond)}); err != nil {
		return err
	}
	if _, err := n.ask(ctx, n.to, nodes.Request{Do: nodes.Reset}); err != nil {
		return err
	}
	return n.profile(ctx)
}

// publish has messages published, and waits until all have come.
func (n *nodePair) publish(ctx context.Context, q nodes.Request) (nodes.Answer, error) {
	p := n.trial.params
	q.Uploads, q.Bytes, q.Publishers = p.Channels, p.Bytes, p.Publishers
	published, err := n.ask(ctx, n.from, q)
	if err != nil {
		return published, err
	}
	n.published += published.Published
	came, err := n.ask(ctx, n.to, nodes.Request{Do: nodes.Wait, Total: n.published, For: n.config.Patience / 2})
	if err == nil && (came.Received != n.published || came.Disorder > 0) {
		err = fmt.Errorf("runner: of %d messages %d have come, %d out of order", n.published, came.Received, came.Disorder)
	}
	return published, err
}

// figures are the measurements between two readings.
func (n *nodePair) figures(published nodes.Answer, before, after nodeLook) (map[results.Metric]float64, error) {
	count := float64(published.Published)
	took := time.Duration(after.to.Last - published.Began)
	if count == 0 || took <= 0 {
		return nil, fmt.Errorf("runner: %v messages were published in %v", count, took)
	}
	m := map[results.Metric]float64{
		results.Throughput: count / took.Seconds(),
		results.Delivered:  float64(after.to.Received - before.to.Received), results.Expected: count,
		results.PublisherCPU: float64(after.from.CPU-before.from.CPU) / count,
		results.CoresUsed:    float64(after.cpu()-before.cpu()) / float64(took),
		results.P50:          milliseconds(after.to.P50),
		results.P99:          milliseconds(after.to.P99),
		results.P999:         milliseconds(after.to.P999),
		results.Recovered:    float64(after.to.Recovered - before.to.Recovered),
	}
	if n.to != n.from {
		m[results.ReceiverCPU] = float64(after.to.CPU-before.to.CPU) / count
	}
	if n.server != nil {
		m[results.BrokerCPU] = float64(after.server-before.server) / count
	}
	if n.trial.scenario == NodeLatency {
		m[results.Late] = milliseconds(published.Late)
	}
	return m, nil
}

package runner

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
)

// nodePair are two nodes, which are one process where their broker is memory, and the server between them.
type nodePair struct {
	*measurement
	server   *worker.Child // nil where the broker has none of its own
	url      string        // of the server
	from, to *worker.Child
	// published is how many messages must have been received so far.
	published uint64
}

// pair starts the processes, and returns when messages arrive.
func (m *measurement) pair() *nodePair {
	n := &nodePair{measurement: m}
	broker := m.trial.params.Work
	var flags [2][]string
	switch broker {
	case nodes.NATS, nodes.Redis:
		n.server, n.url = m.broker(broker)
		flags = [2][]string{{"--url", n.url}, {"--url", n.url}}
	case nodes.Embedded:
		var addresses [2]string
		for i := range addresses {
			var err error
			addresses[i], err = worker.FreeAddress("127.0.0.1")
			m.check(err)
		}
		for i, own := range addresses {
			flags[i] = []string{"--addr", own, "--route", strings.Join(addresses[:], ",")}
		}
	}
	n.to = m.start("node", nil, append([]string{"--broker", broker}, flags[0]...)...)
	n.from = n.to
	if broker != nodes.Memory {
		n.from = m.start("node", nil, append([]string{"--broker", broker}, flags[1]...)...)
	}
	m.do(n.to, "Follow", m.trial.params.Channels)
	m.do(n.from, "Probe", worker.None{})
	return n
}

// nodes measures S9: messages published on one node and received on another, at full speed or at a fixed rate.
func (m *measurement) nodes() {
	n := m.pair()
	p := m.trial.params
	q := nodes.Load{Params: p, For: max(m.Measure/4, time.Millisecond)}
	q.Rate = 0
	n.publish(q) // warms up
	m.do(n.to, "Reset", worker.None{})
	m.profile(n.from, "-publisher")
	if n.from != n.to {
		m.profile(n.to, "-receiver")
	}
	if q.For = m.Measure; m.trial.scenario == results.NodeLatency {
		q.For, q.Rate = m.Duration, p.Rate
	}
	before := n.state()
	published := n.publish(q)
	after := n.state()
	count, took := float64(published.Messages), time.Duration(after.Last-published.Began)
	if m.err == nil && (count == 0 || took <= 0) {
		m.check(fmt.Errorf("runner: %v messages were published in %v", count, took))
	}
	m.figures[results.Throughput] = count / took.Seconds()
	m.figures[results.Delivered], m.figures[results.Expected] = float64(after.Received-before.Received), count
	m.latencies(after.Latency, results.P50, results.P99, results.P999)
	m.figures[results.Recovered] = float64(after.Recovered - before.Recovered)
	publisher, receiver, server := after.from-before.from, after.to-before.to, after.server-before.server
	m.figures[results.PublisherCPU] = float64(publisher) / count
	if n.to != n.from {
		m.figures[results.ReceiverCPU] = float64(receiver) / count
	} else {
		receiver = 0
	}
	if n.server != nil {
		m.figures[results.BrokerCPU] = float64(server) / count
	}
	m.figures[results.CoresUsed] = float64(publisher+receiver+server) / float64(took)
	if m.trial.scenario == results.NodeLatency {
		m.figures[results.Late] = milliseconds(published.Late)
	}
}

// publish has messages published, and waits until all have been received.
func (n *nodePair) publish(q nodes.Load) nodes.Published {
	published := call[nodes.Published](n.measurement, n.from, q.For, "Publish", q)
	n.published += published.Messages
	a := call[nodes.State](n.measurement, n.to, 0, "Wait", nodes.Wait{Total: n.published, For: n.Patience / 2})
	if n.err == nil && (a.Received != n.published || a.Disorder > 0) {
		n.check(fmt.Errorf("runner: of %d messages %d were received, %d out of order", n.published, a.Received, a.Disorder))
	}
	return published
}

// nodeState is the state of the receiving node, and the processor time of the processes.
type nodeState struct {
	nodes.State
	from, to, server int64
}

func (n *nodePair) state() (s nodeState) {
	s.State = call[nodes.State](n.measurement, n.to, 0, "Wait", nodes.Wait{})
	s.from, s.to = n.usage(n.from).CPU, n.usage(n.to).CPU
	if n.server != nil {
		s.server = n.usage(n.server).CPU
	}
	return s
}

// yardstick measures the throughput of the broker's own client, with the server in the state in which the nodes left it.
func (m *measurement) yardstick() {
	n := m.pair()
	run := n.client()
	if m.err != nil {
		return
	}
	for _, node := range []*worker.Child{n.from, n.to} { // they would receive too
		m.check(node.Close())
	}
	p, name := m.trial.params, m.trial.entry.Name
	p.Messages = max(int(guess(name)*m.Measure.Seconds()), p.Publishers)
	before := m.usage(n.server).CPU
	ctx, cancel := context.WithTimeout(m.ctx, m.Patience)
	defer cancel()
	outcome, err := run(ctx, name, p)
	m.check(err)
	count := float64(p.Messages)
	m.figures[results.Throughput] = outcome.PerSecond
	m.figures[results.Delivered], m.figures[results.Expected] = count, count
	m.figures[results.PublisherCPU] = float64(outcome.CPU) / count
	m.figures[results.BrokerCPU] = float64(m.usage(n.server).CPU-before) / count
	if outcome.SubscriberCPU > 0 {
		m.figures[results.ReceiverCPU] = float64(outcome.SubscriberCPU) / count
	}
}

// client returns a function that runs the clients of the trial's broker.
func (n *nodePair) client() func(context.Context, string, results.Params) (yardsticks.Result, error) {
	if n.err != nil {
		return nil
	}
	if n.trial.params.Work == nodes.NATS {
		program, err := yardsticks.NATSProgram(n.ctx, n.Progress)
		n.check(err)
		return yardsticks.NATS{Program: program, URL: n.url, Stream: "SHOAL", Subject: "upload", Live: "live.upload.>"}.Run
	}
	redis, err := yardsticks.RedisAt(n.url)
	n.check(err)
	script, key, err := redis.FindScript(n.ctx, func() error {
		n.do(n.from, "Probe", worker.None{})
		return n.err
	})
	n.check(err)
	redis.Script, redis.Key = script, strings.TrimSuffix(key, "0")
	redis.Channels = []string{"upload:u", "shoal.at:upload:u"}
	return redis.Run
}

// guess is about how many messages a second a client publishes, so that it takes about as long as it should.
func guess(client string) float64 {
	switch client {
	case yardsticks.Core, yardsticks.Plain:
		return 150_000
	case yardsticks.Sync:
		return 20_000
	}
	return 40_000
}

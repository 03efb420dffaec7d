package runner

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
)

// Nodes are the flags of S9.
type Nodes struct {
	Brokers []string `arg:"" optional:"" name:"broker" enum:"${brokers}" help:"Brokers to measure: ${enum} (all)."`

	Publishers []int     `default:"64,1024" within:"1 to 4096" help:"How many publish at once; as many messages do the yardsticks have in flight."`
	Uploads    int       `default:"100" within:"1 to 100000" help:"Uploads that messages go to, with a subscriber each."`
	Rates      []float64 `default:"2000" within:"1 to 1000000" help:"Messages per second at which the latency is measured."`
	Share      []float64 `default:"0.5" within:"0.001 to 1" help:"Further rates, as shares of the measured throughput of the broker."`
	Yardsticks bool      `default:"true" negatable:"" help:"Measure the brokers' own benchmark clients too."`
}

func (n *Nodes) prepare(ctx context.Context, progress io.Writer) (versions map[string]string, err error) {
	if n.Yardsticks {
		versions = map[string]string{yardsticks.NATSModule: yardsticks.NATSVersion, yardsticks.RedisModule: yardsticks.RedisVersion(ctx)}
		_, err = yardsticks.NATSProgram(ctx, progress)
	}
	return versions, err
}

// entries lists this project and the brokers' own clients.
func (n *Nodes) entries() []systems.Entry {
	all := systems.All()[:1]
	if n.Yardsticks {
		all = append(all, yardsticks.Entries()...)
	}
	return all
}

// scenarios lists the parts of S9: the throughput of each broker, to which the clients of that broker belong, and when that is
// known the latency.
func (n *Nodes) scenarios(c Common) []scenario {
	const latencyPublishers = 256 // publish in turn at a fixed rate, so that one that waits delays no other
	brokers := n.Brokers
	if len(brokers) == 0 {
		brokers = nodes.Brokers()
	}
	var throughput, latency []results.Params
	for _, broker := range brokers {
		p := results.Params{Work: broker, Channels: n.Uploads, Bytes: c.Bytes}
		throughput = append(throughput, over(&p, &p.Publishers, n.Publishers)...)
		p.Publishers = latencyPublishers
		latency = append(latency, over(&p, &p.Rate, n.Rates)...)
		p.Rate = 0
		latency = append(latency, over(&p, &p.Load, n.Share)...)
	}
	return []scenario{
		{results.Nodes, (*measurement).nodes, func(e systems.Entry, p results.Params) bool {
			return e.Kind == systems.Own || slices.Contains(yardsticks.Of(p.Work), e.Name)
		}, throughput},
		{results.NodeLatency, (*measurement).nodes, only(systems.OwnName), latency},
	}
}

// nodePair are two nodes, which are one process where their broker is memory, and the server between them.
type nodePair struct {
	*measurement
	server   *worker.Child // nil where the broker has none of its own
	url      string        // of the server
	from, to *worker.Child
	// published is how many messages must have been received so far.
	published uint64
}

// broker starts the server of a broker, NATS or Redis, and returns its process and its URL.
func (m *measurement) broker(name string) (server *worker.Child, url string) {
	server = m.start(nil, "broker", name)
	started := call[worker.Started](m, server, 0, "Broker.Start", name)
	server.Program = started.PID
	return server, started.Addr
}

// node starts a process with a node.
func (m *measurement) node(o nodes.Options) *worker.Child {
	child := m.start(nil, "node", o.Broker)
	m.do(child, "Node.Start", o)
	return child
}

// pair starts the processes, and returns when messages arrive.
func (m *measurement) pair() *nodePair {
	n := &nodePair{measurement: m}
	to := nodes.Options{Broker: m.trial.params.Work}
	from := to
	switch to.Broker {
	case nodes.NATS, nodes.Redis:
		n.server, n.url = m.broker(to.Broker)
		to.URL, from.URL = n.url, n.url
	case nodes.Embedded:
		for _, o := range []*nodes.Options{&to, &from} {
			var err error
			o.Addr, err = worker.FreeAddress("127.0.0.1")
			m.check(err)
		}
		to.Routes = []string{to.Addr, from.Addr}
		from.Routes = to.Routes
	}
	n.to = m.node(to)
	if n.from = n.to; to.Broker != nodes.Memory {
		n.from = m.node(from)
	}
	m.do(n.to, "Node.Follow", m.trial.params.Channels)
	m.do(n.from, "Node.Probe", worker.None{})
	return n
}

// nodes measures S9: messages published on one node and received on another, at full speed or at a fixed rate, or with the
// broker's own client.
func (m *measurement) nodes() {
	n, p := m.pair(), m.trial.params
	if m.trial.entry.Kind == systems.Yardstick {
		n.yardstick()
		return
	}
	q := results.Timed{Params: p, For: max(m.Measure/4, time.Millisecond)}
	q.Rate = 0
	n.publish(q) // warms up
	m.do(n.to, "Node.Reset", worker.None{})
	m.profile(n.from, "-publisher")
	if n.from != n.to {
		m.profile(n.to, "-receiver")
	}
	if q.For = m.Measure; p.Rate > 0 {
		q.For, q.Rate = m.Duration, p.Rate
	}
	before, state := n.processorTimes(), n.state()
	published := n.publish(q)
	after := n.state()
	count, took := float64(published.Messages), time.Duration(after.Last-published.Began)
	if m.err == nil && (count == 0 || took <= 0) {
		m.check(fmt.Errorf("runner: %v messages were published in %v", count, took))
	}
	all := 0.
	for metric, used := range n.processorTimes() {
		used -= before[metric]
		m.figures[metric] = used / count
		all += used
	}
	m.figures[results.CoresUsed] = all / float64(took)
	m.figures[results.Throughput] = count / took.Seconds()
	m.figures[results.Delivered], m.figures[results.Expected] = float64(after.Received-state.Received), count
	m.figures.AddTimes(after.Latency, results.P50, results.P99, results.P999)
	m.figures[results.Recovered] = float64(after.Recovered - state.Recovered)
	if p.Rate > 0 {
		m.figures[results.Late] = milliseconds(published.Late)
	}
}

// publish has messages published, and waits until all have been received.
func (n *nodePair) publish(q results.Timed) nodes.Published {
	published := call[nodes.Published](n.measurement, n.from, q.For, "Node.Publish", q)
	n.published += published.Messages
	a := call[nodes.State](n.measurement, n.to, 0, "Node.Wait", nodes.Wait{Total: n.published, For: n.Patience / 2})
	if n.err == nil && (a.Received != n.published || a.Disorder > 0) {
		n.check(fmt.Errorf("runner: of %d messages %d were received, %d out of order", n.published, a.Received, a.Disorder))
	}
	return published
}

// state returns the state of the receiving node.
func (n *nodePair) state() nodes.State {
	return call[nodes.State](n.measurement, n.to, 0, "Node.Wait", nodes.Wait{})
}

// processorTimes returns the processor time of each process.
func (n *nodePair) processorTimes() results.Figures {
	times := results.Figures{results.PublisherCPU: float64(n.usage(n.from, false).CPU)}
	if n.to != n.from {
		times[results.ReceiverCPU] = float64(n.usage(n.to, false).CPU)
	}
	if n.server != nil {
		times[results.BrokerCPU] = float64(n.usage(n.server, false).CPU)
	}
	return times
}

// yardstick measures the throughput of the broker's own client, with the server in the state in which the nodes left it.
func (n *nodePair) yardstick() {
	if n.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, n.Patience)
	defer cancel()
	clients, err := yardsticks.Open(ctx, n.url, func() error {
		n.do(n.from, "Node.Probe", worker.None{})
		return n.err
	}, n.Progress)
	if !n.check(err) {
		return
	}
	for _, node := range []*worker.Child{n.from, n.to} { // they would receive too
		n.check(node.Close())
	}
	before := n.usage(n.server, false).CPU
	r, err := clients.Run(ctx, n.trial.entry.Name, n.trial.params, n.Measure)
	n.check(err)
	n.figures[results.Throughput] = r.PerSecond
	n.figures[results.Delivered], n.figures[results.Expected] = r.Messages, r.Messages
	n.figures[results.PublisherCPU] = float64(r.CPU) / r.Messages
	n.figures[results.BrokerCPU] = float64(n.usage(n.server, false).CPU-before) / r.Messages
	if r.SubscriberCPU > 0 {
		n.figures[results.ReceiverCPU] = float64(r.SubscriberCPU) / r.Messages
	}
}

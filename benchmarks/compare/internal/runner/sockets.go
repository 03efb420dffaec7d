package runner

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/link"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

// session is a server and its clients.
type session struct {
	*measurement
	server, clients *worker.Child
	addr            string
	// connections is their number, of which stalled do not read.
	connections, stalled int
	// awaited is the number of messages that the clients must have received so far, all together.
	awaited uint64
}

// serve starts a server and the process of its clients, for a share of the connections.
func (m *measurement) serve(between *link.Link, servers int, o serverproc.Options) *session {
	var at, atClients []string
	if between != nil {
		o.Host = link.ServerAddr
		at, atClients = between.Server(), between.Client()
	}
	s := m.server(at, servers, o)
	s.clients = m.start(atClients, "clients", m.trial.entry.Name) // ends first: servers wait for their clients
	return s
}

// server starts a server, by way of another program if there is a prefix.
func (m *measurement) server(prefix []string, servers int, o serverproc.Options) *session {
	p := m.trial.params
	s := &session{measurement: m, connections: p.Connections / servers}
	s.stalled = int(math.Round(p.Stalled * float64(s.connections)))
	o.System, o.Program, o.TLS = m.trial.entry.Name, m.trial.entry.Command, p.TLS
	s.server = m.start(prefix, "server", o.System)
	started := call[worker.Started](m, s.server, 0, "Server.Start", o)
	s.addr, s.server.Program = started.Addr, started.PID
	return s
}

// connect connects the clients and blocks until all are subscribed.
func (s *session) connect(q loadgen.Audience) loadgen.Opened {
	p := s.trial.params
	q.System, q.Addr, q.Connections, q.Channels = s.trial.entry.Name, s.addr, s.connections, p.Channels
	q.Stalled, q.TLS = s.stalled, p.TLS
	opened := call[loadgen.Opened](s.measurement, s.clients, 0, "Clients.Open", q)
	if s.trial.entry.Part == systems.StormOnly {
		return opened
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.Patience)
	defer cancel()
	n := 0
	err := worker.Poll(ctx, func() bool { // not every protocol acknowledges a subscription
		n = s.subscriptions()
		return s.err != nil || n == s.connections
	})
	if err != nil {
		s.check(fmt.Errorf("runner: %d of %d clients are subscribed: %w", n, s.connections, err))
	}
	return opened
}

// subscriptions is the number of clients that are subscribed, as the server says.
func (s *session) subscriptions() int {
	return call[int](s.measurement, s.server, 0, "Server.Subscriptions", worker.None{})
}

// expects is how many messages all clients that read receive of a load.
func (s *session) expects(q results.Params) uint64 {
	return uint64(q.Messages * (s.connections - s.stalled) / q.Channels) //nolint:gosec // not negative
}

// round is the outcome of messages that were published together.
type round struct {
	serverproc.Published
	loadgen.Received
	delivered, expected uint64
}

// add adds the messages of one server and its clients. The round lasts from the first begin to the last end.
func (r *round) add(p serverproc.Published, c loadgen.Received) {
	if r.Ended == 0 {
		r.Published, r.Received = p, c
		return
	}
	r.Began, r.Ended = min(r.Began, p.Began), max(r.Ended, c.Ended)
	r.CPU += c.CPU
	r.Messages += c.Messages
	r.Closed += c.Closed
	r.Missing = cmp.Or(r.Missing, c.Missing)
}

// took is the time from the first message's publishing until the last one was received.
func (r round) took() time.Duration { return time.Duration(r.Ended - r.Began) }

// missing describes the missing messages of a round, if there are any.
func (r round) missing() error {
	if r.Missing == "" {
		return nil
	}
	return fmt.Errorf("runner: %d of %d messages were delivered, %d connections had ended: %s", r.delivered, r.expected, r.Closed, r.Missing)
}

// atRate is the load of the trial for a time.
func (m *measurement) atRate(d time.Duration) results.Params {
	const leastMessages = 20
	q := m.trial.params
	q.Messages = max(int(q.Rate*d.Seconds()), leastMessages)
	return q
}

// group are servers with their clients that work at the same time, most often one.
type group []*session

// usage returns the use of the machine by all servers.
func (g group) usage() (all worker.Usage) {
	for _, s := range g {
		u := s.usage(s.server, false)
		all.CPU, all.Writes, all.Resident = all.CPU+u.CPU, all.Writes+u.Writes, all.Resident+u.Resident
	}
	return all
}

// round has every server publish at once, and waits until all clients that read have received the messages: as long as the
// patience lasts after they have been published. The clients wait from before the first message on, so that the time of the last
// one is exact.
func (g group) round(q results.Params) (all round) {
	m := g[0].measurement
	takes := m.Patience
	if q.Rate > 0 {
		takes += time.Duration(float64(q.Messages) / q.Rate * float64(time.Second))
	}
	received, published := make([]func() loadgen.Received, len(g)), make([]func() serverproc.Published, len(g))
	before := uint64(0)
	for i, s := range g {
		before += s.awaited
		s.awaited += s.expects(q)
		all.expected += s.expects(q)
		received[i] = begin[loadgen.Received](m, s.clients, takes, "Clients.Wait", loadgen.Wait{Total: s.awaited, Timeout: takes})
	}
	for i, s := range g {
		published[i] = begin[serverproc.Published](m, s.server, takes, "Server.Publish", q)
	}
	for i := range g {
		all.add(published[i](), received[i]())
	}
	all.delivered = max(all.Messages, before) - before // none after a failure
	return all
}

// throughput measures S1, S2 and S3: messages are published round after round, each round when all clients have received
// the one before. The time between the rounds does not count.
func (m *measurement) throughput() {
	const minRounds = 5 // beside one that warms up
	servers := max(m.trial.params.Servers, 1)
	var g group
	for range servers {
		g = append(g, m.serve(nil, servers, serverproc.Options{}))
	}
	for _, s := range g {
		s.connect(loadgen.Audience{})
	}
	q := m.trial.params
	warm := g.round(q)
	m.check(warm.missing())
	m.profile(g[0].server, "")
	before := g.usage()
	var rounds []round
	var took time.Duration
	for m.err == nil && (len(rounds) < minRounds || took < m.Measure) {
		r := g.round(q)
		rounds = append(rounds, r)
		if took += r.took(); r.Missing != "" {
			break
		}
	}
	if after := g.usage(); m.err == nil {
		m.throughputOf(rounds, warm.CPU, before, after)
	}
}

// throughputOf adds up the rounds.
func (m *measurement) throughputOf(rounds []round, clientsBefore int64, before, after worker.Usage) {
	var took time.Duration
	var delivered, expected float64
	var each []time.Duration
	for _, r := range rounds {
		took += r.took()
		each = append(each, r.took())
		delivered += float64(r.delivered)
		expected += float64(r.expected)
	}
	slices.Sort(each)
	last := rounds[len(rounds)-1]
	cpu := after.CPU - before.CPU
	m.share(cpu, last.CPU-clientsBefore, took)
	m.figures[results.Rounds] = float64(len(rounds))
	m.figures[results.Delivered], m.figures[results.Expected] = delivered, expected
	m.figures[results.Closed] = float64(last.Closed)
	m.figures[results.Resident] = float64(after.Resident) / float64(m.trial.params.Connections)
	m.figures[results.Throughput] = delivered / took.Seconds()
	m.figures[results.ServerCPU] = float64(cpu) / delivered
	m.figures[results.PerWrite] = delivered / float64(max(after.Writes-before.Writes, 1))
	if m.trial.params.Messages == 1 {
		m.figures[results.ToLast] = milliseconds(int64(each[len(each)/2]))
	}
	m.check(last.missing())
}

// latency measures S4: messages at a fixed rate, from the time for which each was planned until it was received, at all
// clients that read. The buffers of the others are filled before, with few large messages: the kernel keeps some 64 KiB for a
// client beside the server's send buffer.
func (m *measurement) latency() {
	const fillMessages, fillBytes = 20, 16 << 10
	s := m.serve(nil, 1, serverproc.Options{SendBuffer: 16 << 10}) // the kernel's own choice holds megabytes
	s.connect(loadgen.Audience{Latency: true})
	g := group{s}
	var filled round
	for range fillMessages { // each when the clients that read have received the one before
		filled = g.round(results.Params{Channels: 1, Messages: 1, Bytes: fillBytes})
		m.check(filled.missing())
	}
	m.do(s.clients, "Clients.Reset", worker.None{})
	m.profile(s.server, "")
	before := g.usage()
	r := g.round(m.atRate(m.Duration))
	cpu := g.usage().CPU - before.CPU
	m.share(cpu, r.CPU-filled.CPU, r.took())
	m.figures.AddTimes(r.Latency, results.P50, results.P99, results.P999)
	m.figures[results.Late] = milliseconds(r.Late)
	m.figures[results.Delivered], m.figures[results.Expected] = float64(r.delivered), float64(r.expected)
	m.figures[results.Closed] = float64(s.connections - s.subscriptions())
	m.figures[results.ServerCPU] = float64(cpu) / float64(r.delivered)
	m.check(r.missing())
}

package runner

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/link"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

// memory measures S5: the memory in use, after a collection, with connections that have been idle for a time and before them.
func (m *measurement) memory(settle time.Duration) {
	s := m.serve(nil, 1, serverproc.Options{})
	kernel := worker.Slab()
	empty := m.usage(s.server, true)
	s.connect(loadgen.Audience{})
	m.check(worker.Sleep(m.ctx, settle))
	full := m.usage(s.server, true)
	kernel = worker.Slab() - kernel
	n := float64(s.connections)
	m.figures[results.PerConnection] = float64(full.Resident-empty.Resident) / n
	m.figures[results.Resident] = float64(full.Resident) / n
	m.figures[results.Kernel] = max(float64(kernel)/n/2, 0) // the clients' ends are on this machine, too
}

// storm measures S6: all clients reconnect at once and resume their subscriptions, one each.
func (m *measurement) storm() {
	s := m.serve(nil, 1, serverproc.Options{})
	m.profile(s.server, "")
	server, clients := m.usage(s.server, false), m.usage(s.clients, false)
	opened := s.connect(loadgen.Audience{Storm: true})
	took := time.Duration(opened.Ended - opened.Began)
	cpu := m.usage(s.server, false).CPU - server.CPU
	n := float64(s.connections)
	m.share(cpu, opened.CPU-clients.CPU, took)
	m.figures[results.ConnectRate] = n / took.Seconds()
	m.figures.AddTimes(opened.Ready, results.ReadyP50, results.ReadyP99)
	m.figures[results.ConnectCPU] = float64(cpu) / n / 1e3
}

// fresh measures S10: one client behind a slow link follows an upload with many states a second. It measures after a time that warms
// up: buffers on the way fill up first. A message that has not been received when publishing is over does not
// count: a system whose queue grows without bound would otherwise be waited for as long again.
func (m *measurement) fresh(warmUp time.Duration) {
	p := m.trial.params
	between, err := link.New(m.ctx, link.Options{
		Rate: float64(p.Kbits) * 1000, Delay: time.Duration(p.DelayMS) * time.Millisecond, Loss: p.Loss,
	})
	if !m.check(err) {
		return
	}
	m.closers = append(m.closers, between.Close)
	s := m.serve(between, 1, serverproc.Options{})
	s.connect(loadgen.Audience{Latency: true})
	if m.err != nil {
		return
	}
	q := m.atRate(m.Duration)
	measured := float64(q.Messages)
	wait := loadgen.Wait{Total: math.MaxUint64, WarmUp: warmUp, Timeout: time.Duration(measured / p.Rate * float64(time.Second))}
	q.Messages += int(p.Rate * warmUp.Seconds())
	takes := wait.WarmUp + wait.Timeout
	received := begin[loadgen.Received](m, s.clients, takes, "Clients.Wait", wait)
	published := call[serverproc.Published](m, s.server, takes, "Server.Publish", q)
	r := received()
	m.figures.AddTimes(r.Latency, results.P50, results.P99)
	m.figures[results.Late] = milliseconds(published.Late)
	m.figures[results.Messages] = float64(r.Messages)
	m.figures[results.Received] = float64(r.Messages) / measured
	m.figures[results.ReceivedBytes] = float64(r.Bytes)
	m.figures[results.Closed] = float64(r.Closed)
	if r.Closed > 0 {
		m.figures[results.Lasted] = milliseconds(r.Ended - published.Began)
		m.figures[results.CloseCode] = closeCode(r.Missing)
	}
}

// closeCode returns the code in an explanation of why a connection has ended, 0 if there is none.
func closeCode(explanation string) float64 {
	_, code, _ := strings.Cut(explanation, "closed the connection with ")
	n := 0
	_, _ = fmt.Sscanf(code, "%d", &n) // stays 0 without a number
	return float64(n)
}

// direct measures S11: server, publisher and clients are one process. A few messages warm it up.
func (m *measurement) direct() {
	s := m.server(nil, 1, serverproc.Options{})
	s.clients = s.server
	s.connect(loadgen.Audience{Goroutines: true})
	g, q := group{s}, m.atRate(m.Measure)
	m.profile(s.server, "")
	warm := q
	warm.Messages = 200
	m.check(g.round(warm).missing())
	m.do(s.clients, "Clients.Reset", worker.None{})
	r := g.round(q)
	m.figures.AddTimes(r.Latency, results.P50, results.P99, results.P999)
	m.figures.AddTimes(r.Called, results.CallP50, results.CallP99, results.CallP999)
	m.figures[results.Late] = milliseconds(r.Late)
	m.figures[results.Delivered], m.figures[results.Expected] = float64(r.delivered), float64(r.expected)
	m.check(r.missing())
}

// intake measures S12: it publishes for a while to warm up, and then measures.
func (m *measurement) intake() {
	p := m.trial.params
	var o serverproc.Options
	if broker := foreign(p); broker != "" {
		_, o.Broker = m.broker(broker)
	}
	s := m.serve(nil, 1, o)
	if p.Connections > 0 {
		s.connect(loadgen.Audience{})
	}
	q := loadgen.Intake{System: m.trial.entry.Name, Addr: cmp.Or(o.Broker, s.addr)}
	q.Params, q.For = p, m.Measure/4
	warm := call[loadgen.TakenIn](m, s.clients, q.For, "Clients.Intake", q)
	m.profile(s.server, "")
	before := m.usage(s.server, false)
	q.For = m.Measure
	a := call[loadgen.TakenIn](m, s.clients, q.For, "Clients.Intake", q)
	cpu := m.usage(s.server, false).CPU - before.CPU
	published := float64(a.Published)
	m.share(cpu, a.CPU-warm.CPU, time.Duration(a.Took))
	m.figures[results.Throughput] = published / time.Duration(a.Took).Seconds()
	m.figures[results.ServerCPU] = float64(cpu) / published
	m.figures.AddTimes(a.Latency, results.P50, results.P99)
	if p.Connections > 0 {
		m.figures[results.Received] = float64(a.Received-warm.Received) / published
	}
}

// withoutSockets measures work of a manager with connections that only count.
func (m *measurement) withoutSockets() {
	s := m.start(nil, "sinks", m.trial.params.Work)
	q := results.Timed{Params: m.trial.params, For: m.Measure}
	maps.Copy(m.figures, call[results.Figures](m, s, 3*m.Measure, "Sinks.Measure", q))
}

// onCores measures a work of the sweep of cores: bursts over sockets, and the others without.
func (m *measurement) onCores() {
	if m.trial.params.Work == results.OverSockets {
		m.throughput()
	} else {
		m.withoutSockets()
	}
}

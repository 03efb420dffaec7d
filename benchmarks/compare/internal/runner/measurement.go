package runner

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
)

// measurement is one measurement under way, with processes of its own. After the first failure, which it keeps, its methods
// do nothing and return zero values. It is used from one goroutine.
type measurement struct {
	Config
	ctx   context.Context // the life of the measurement
	trial trial
	// figures are the results.
	figures map[results.Metric]float64
	err     error
	// closers end the processes, the latest first. If the measurement has failed, killers end them before.
	closers []func() error
	killers []func()
}

// measure makes one measurement.
func measure(ctx context.Context, c Config, t trial) (map[results.Metric]float64, error) {
	m := &measurement{Config: c, ctx: ctx, trial: t, figures: map[results.Metric]float64{}}
	t.measure(m)
	if m.err != nil {
		for _, kill := range slices.Backward(m.killers) {
			kill() // after a failure no process can be relied on to end by itself
		}
	}
	var ended error
	for _, end := range slices.Backward(m.closers) {
		ended = errors.Join(ended, end())
	}
	if m.err == nil && ended != nil {
		m.err = fmt.Errorf("runner: it was measured, but did not end well: %w", ended)
	}
	if m.err != nil && m.figures[results.Delivered] == 0 {
		return nil, m.err
	}
	for metric, value := range m.figures {
		if math.IsNaN(value) || math.IsInf(value, 0) { // a quotient of a time of 0
			delete(m.figures, metric)
		}
	}
	return m.figures, m.err
}

// check keeps the first failure and reports whether there is none yet.
func (m *measurement) check(err error) bool {
	if m.err == nil {
		m.err = err
	}
	return m.err == nil
}

// start starts this program as a process, by way of another program if there is a prefix.
func (m *measurement) start(name string, prefix []string, arguments ...string) *worker.Child {
	if m.err != nil {
		return nil
	}
	all := slices.Concat(prefix, []string{m.Program, name}, arguments)
	command := exec.Command(all[0], all[1:]...) // it is this program
	if procs := m.trial.params.Procs; procs > 0 && name != "load" {
		command.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(procs))
	}
	child, err := worker.Start(name, command)
	if m.check(err) {
		m.closers = append(m.closers, child.Close)
		m.killers = append(m.killers, child.Kill)
	}
	return child
}

// call calls a method of a process, within the patience and the time that the call itself takes.
func call[A any](m *measurement, c *worker.Child, takes time.Duration, method string, arguments any) (a A) {
	if m.err != nil {
		return a
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.Patience+takes)
	defer cancel()
	a, err := worker.Call[A](ctx, c, method, arguments)
	m.check(err)
	return a
}

// do calls a method without a result.
func (m *measurement) do(c *worker.Child, method string, arguments any) {
	call[worker.None](m, c, 0, method, arguments)
}

func (m *measurement) usage(c *worker.Child) worker.Usage {
	return call[worker.Usage](m, c, 0, "Usage", false)
}

// profile begins to profile a process, if that is asked for.
func (m *measurement) profile(c *worker.Child, role string) {
	if m.Profiles == "" || m.err != nil || !m.check(os.MkdirAll(m.Profiles, 0o750)) {
		return
	}
	p, t := m.trial.params, m.trial
	name := fmt.Sprintf("%s-%s-%s%s-%d-%d-%g-%g-%d.pprof", t.name(), t.entry.Name, p.Work, role, p.Connections, p.Publishers,
		p.Load, p.Stalled, t.repeat)
	file, err := filepath.Abs(filepath.Join(m.Profiles, strings.ReplaceAll(name, " ", "-")))
	if m.check(err) {
		m.do(c, "Profile", file)
	}
}

// pause blocks for some time.
func (m *measurement) pause(d time.Duration) {
	select {
	case <-m.ctx.Done():
		m.check(m.ctx.Err())
	case <-time.After(d):
	}
}

// share adds the clients' share of the processor time, and how many cores were busy.
func (m *measurement) share(server, clients int64, took time.Duration) {
	all := float64(server + clients)
	m.figures[results.GeneratorShare] = float64(clients) / all
	m.figures[results.CoresUsed] = all / float64(took)
}

// latencies adds percentiles in milliseconds.
func (m *measurement) latencies(p worker.Percentiles, metrics ...results.Metric) {
	for i, at := range []int64{p.P50, p.P99, p.P999} {
		if i < len(metrics) {
			m.figures[metrics[i]] = milliseconds(at)
		}
	}
}

func milliseconds(nanoseconds int64) float64 { return float64(nanoseconds) / 1e6 }

// brokerServer is a server of NATS or Redis in a process of its own. cpu returns its processor time in nanoseconds.
type brokerServer struct {
	url string
	cpu func() int64
}

// brokerServer starts the server of a broker.
func (m *measurement) brokerServer(broker string) (s brokerServer) {
	if m.err != nil {
		return s
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.Patience)
	defer cancel()
	s, end, err := startServer(ctx, m.Program, broker)
	if m.check(err) {
		m.closers = append(m.closers, end)
	}
	return s
}

// StartServer starts a server of NATS or Redis in a process of its own, and returns its URL and a function that ends it.
// program is this program.
func StartServer(ctx context.Context, program, broker string) (url string, end func() error, err error) {
	s, end, err := startServer(ctx, program, broker)
	return s.url, end, err
}

func startServer(ctx context.Context, program, broker string) (s brokerServer, end func() error, err error) {
	if broker == "redis" {
		return startRedis(ctx)
	}
	command := exec.Command(program, "nats-server") // it is this program
	child, err := worker.Start("NATS", command)
	if err != nil {
		return s, nil, err
	}
	addr, err := worker.Call[string](ctx, child, "Addr", worker.None{})
	if err != nil {
		child.Kill()
		return s, nil, err
	}
	return brokerServer{"nats://" + addr, func() int64 {
		u, _ := worker.Call[worker.Usage](context.WithoutCancel(ctx), child, "Usage", false) // 0 of a server that has ended
		return u.CPU
	}}, child.Close, nil
}

// startRedis starts redis-server, without persistence.
func startRedis(ctx context.Context) (s brokerServer, end func() error, err error) {
	addr, err := systems.FreeAddress("127.0.0.1")
	if err != nil {
		return s, nil, err
	}
	host, port, _ := net.SplitHostPort(addr)
	// The server of the yardsticks, which lives longer than ctx.
	command := exec.Command("redis-server", "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--daemonize", "no")
	if err := command.Start(); err != nil {
		return s, nil, fmt.Errorf("runner: Redis does not start, is it installed? %w", err)
	}
	end = func() error { // at once: it has nothing to keep
		_ = command.Process.Kill()
		_ = command.Wait()
		return nil
	}
	for server := (yardsticks.Redis{Host: host, Port: port}); !server.Answers(ctx); time.Sleep(5 * time.Millisecond) {
		if ctx.Err() != nil {
			return s, nil, errors.Join(fmt.Errorf("runner: Redis does not answer: %w", ctx.Err()), end())
		}
	}
	return brokerServer{"redis://" + addr, func() int64 { return worker.UsageOf(command.Process.Pid).CPU }}, end, nil
}

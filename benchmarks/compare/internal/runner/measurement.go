package runner

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

// measurement is one measurement under way, with processes of its own. After the first failure, which it keeps, its methods
// do nothing and return zero values. It is used from one goroutine.
type measurement struct {
	Config
	ctx   context.Context // the life of the measurement
	trial trial
	// figures are the results.
	figures results.Figures
	err     error
	// closers end the processes.
	closers worker.Closers
}

// measure makes one measurement.
func measure(ctx context.Context, c Config, t trial) (results.Figures, error) {
	m := &measurement{Config: c, ctx: ctx, trial: t, figures: results.Figures{}}
	t.scenario.measure(m)
	if ended := m.closers.Close(); m.err == nil && ended != nil {
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

// start starts this program as a process, by way of another program if there is a prefix. The role is its name in errors, and
// both texts are in lists of processes.
func (m *measurement) start(prefix []string, role, about string) *worker.Child {
	if m.err != nil {
		return &worker.Child{} // it is not called any more
	}
	all := append(slices.Clone(prefix), m.Program, "process", role, about)
	command := exec.Command(all[0], all[1:]...) // it is this program
	if procs := m.trial.params.Procs; procs > 0 && role != "clients" {
		command.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(procs))
	}
	child, err := worker.Start(role, command)
	if !m.check(err) {
		return &worker.Child{}
	}
	m.closers = append(m.closers, func() error {
		if m.err != nil {
			child.Kill() // after a failure no process can be relied on to end by itself
		}
		return child.Close()
	})
	return child
}

// begin calls a method of a process and returns a function that waits for the result, within the patience and the time that the
// call itself takes.
func begin[A any](m *measurement, c *worker.Child, takes time.Duration, method string, arguments any) (result func() A) {
	if m.err != nil {
		return func() (none A) { return none }
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.Patience+takes)
	answer := worker.Begin[A](ctx, c, method, arguments)
	return func() (a A) {
		defer cancel()
		if m.err != nil {
			return a
		}
		a, err := answer()
		m.check(err)
		return a
	}
}

// call calls a method and waits for its result.
func call[A any](m *measurement, c *worker.Child, takes time.Duration, method string, arguments any) A {
	return begin[A](m, c, takes, method, arguments)()
}

// do calls a method without a result.
func (m *measurement) do(c *worker.Child, method string, arguments any) {
	call[worker.None](m, c, 0, method, arguments)
}

// usage returns the use of the machine by a process, which with clean first returns the memory that it does not need.
func (m *measurement) usage(c *worker.Child, clean bool) worker.Usage {
	return call[worker.Usage](m, c, 0, "Process.Usage", worker.Measured{PID: c.Program, Clean: clean})
}

// profile begins to profile a process, if that is asked for.
func (m *measurement) profile(c *worker.Child, role string) {
	if m.Profiles == "" || m.err != nil || !m.check(os.MkdirAll(m.Profiles, 0o750)) {
		return
	}
	p, t := m.trial.params, m.trial
	name := fmt.Sprintf("%s-%s-%s%s-%d-%d-%g-%g-%d.pprof", t.scenario.name, t.entry.Name, p.Work, role, p.Connections, p.Publishers,
		p.Load, p.Stalled, t.repeat)
	file, err := filepath.Abs(filepath.Join(m.Profiles, strings.ReplaceAll(name, " ", "-")))
	if m.check(err) {
		m.do(c, "Process.Profile", file)
	}
}

// share adds the clients' share of the processor time, and how many cores were busy.
func (m *measurement) share(server, clients int64, took time.Duration) {
	all := float64(server + clients)
	m.figures[results.GeneratorShare] = float64(clients) / all
	m.figures[results.CoresUsed] = all / float64(took)
}

func milliseconds(nanoseconds int64) float64 { return float64(nanoseconds) / 1e6 }

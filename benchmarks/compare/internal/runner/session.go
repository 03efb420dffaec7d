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
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/control"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/link"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// session is a server and its clients, fresh for each trial. It is used from one goroutine.
type session struct {
	config  Config
	trial   trial
	server  *control.Child[serverproc.Request, serverproc.Answer]
	clients *control.Child[loadgen.Request, loadgen.Answer]
	addr    string
	link    *link.Link // between the two processes; nil: the loopback interface
	// clientsCPU is the processor time of the clients' process before they connected.
	clientsCPU int64
	// awaited is how many messages the clients must have got so far, all together.
	awaited uint64
}

// smallBuffer is the kernel's send buffer per connection in S4, in bytes, so that a client that does not read
// fills it soon. The kernel's own choice holds megabytes.
const smallBuffer = 16 << 10

// begin starts the server, with further flags.
func begin(ctx context.Context, c Config, t trial, flags ...string) (*session, error) {
	s := &session{config: c, trial: t}
	return s, s.start(ctx, flags)
}

// beginOn starts the server at its end of a link.
func beginOn(ctx context.Context, c Config, t trial, l *link.Link) (*session, error) {
	s := &session{config: c, trial: t, link: l}
	return s, s.start(ctx, []string{"--host", link.ServerAddr})
}

func (s *session) start(ctx context.Context, flags []string) error {
	arguments := append([]string{"serve", "--system", s.trial.entry.Name}, flags...)
	if s.trial.scenario == Latency {
		arguments = append(arguments, "--send-buffer", strconv.Itoa(smallBuffer))
	}
	if s.trial.params.TLS {
		arguments = append(arguments, "--tls")
	}
	if s.trial.entry.Command != "" {
		arguments = append(arguments, "--program", s.config.Centrifugo)
	}
	var prefix []string
	if s.link != nil {
		prefix = s.link.Server()
	}
	command := s.command(prefix, arguments...)
	command.Env = procsOf(s.trial.params)
	ctx, cancel := context.WithTimeout(ctx, s.config.Patience)
	defer cancel()
	var answer serverproc.Answer
	var err error
	s.server, answer, err = control.Start[serverproc.Request, serverproc.Answer](ctx, "server", command)
	s.addr = answer.Addr
	return err
}

// command returns this program with arguments, run by another one if there is a prefix.
func (s *session) command(prefix []string, arguments ...string) *exec.Cmd {
	all := slices.Concat(prefix, []string{s.config.Program}, arguments)
	return exec.Command(all[0], all[1:]...) //nolint:gosec // it is this program
}

// connect starts the clients and blocks until all are subscribed.
func (s *session) connect(ctx context.Context) (loadgen.Answer, error) {
	if err := s.startClients(ctx); err != nil {
		return loadgen.Answer{}, err
	}
	return s.open(ctx)
}

// startClients starts the clients' process.
func (s *session) startClients(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.Patience)
	defer cancel()
	var prefix []string
	if s.link != nil {
		prefix = s.link.Client()
	}
	var answer loadgen.Answer
	var err error
	s.clients, answer, err = control.Start[loadgen.Request, loadgen.Answer](ctx, "clients", s.command(prefix, "load"))
	s.clientsCPU = answer.CPU
	return err
}

// open connects the clients and blocks until all are subscribed.
func (s *session) open(ctx context.Context) (loadgen.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.Patience)
	defer cancel()
	p := s.trial.params
	answer, err := s.clients.Call(ctx, loadgen.Request{
		Do:          loadgen.Open,
		System:      s.trial.entry.Name,
		Addr:        s.addr,
		Connections: p.Connections,
		Channels:    p.Channels,
		Stalled:     s.stalled(),
		Storm:       s.trial.scenario == Storm,
		Latency:     s.trial.scenario == Latency || s.trial.scenario == Fresh,
		TLS:         p.TLS,
	})
	if err == nil && s.trial.entry.Part != systems.StormOnly {
		err = s.subscribed(ctx)
	}
	return answer, err
}

// look returns how the server stands.
func (s *session) look(ctx context.Context) (serverproc.Answer, error) {
	return s.serve(ctx, serverproc.Request{Do: serverproc.Look})
}

// subscribed blocks until the server has all subscriptions: not every protocol acknowledges them.
func (s *session) subscribed(ctx context.Context) error {
	const often = 10 * time.Millisecond
	for {
		a, err := s.server.Call(ctx, serverproc.Request{Do: serverproc.Look})
		if err != nil || a.Subscriptions == s.trial.params.Connections {
			return err
		}
		if pause(ctx, often) != nil {
			return fmt.Errorf("runner: %d of %d clients are subscribed", a.Subscriptions, s.trial.params.Connections)
		}
	}
}

// pause blocks for some time, or until ctx ends, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (s *session) stalled() int {
	return int(math.Round(s.trial.params.Stalled * float64(s.trial.params.Connections)))
}

// profile begins to profile the server, if that is asked for.
func (s *session) profile(ctx context.Context) error {
	if s.config.Profiles == "" {
		return nil
	}
	if err := os.MkdirAll(s.config.Profiles, 0o750); err != nil {
		return fmt.Errorf("runner: %w", err)
	}
	p := s.trial.params
	name := fmt.Sprintf("%s-%s-%d-%g-%g-%d.pprof", s.trial.name(), s.trial.entry.Name, p.Connections, p.Load,
		p.Stalled, s.trial.repeat)
	file, err := filepath.Abs(filepath.Join(s.config.Profiles, name))
	if err != nil {
		return fmt.Errorf("runner: %w", err)
	}
	_, err = s.serve(ctx, serverproc.Request{Do: serverproc.Profile, File: file})
	return err
}

// serve has the server do something, within the patience.
func (s *session) serve(ctx context.Context, q serverproc.Request) (serverproc.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.Patience)
	defer cancel()
	return s.server.Call(ctx, q)
}

// drive has the clients do something. A wait of theirs ends by itself before the patience does.
func (s *session) drive(ctx context.Context, q loadgen.Request) (loadgen.Answer, error) {
	const margin = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, s.config.Patience+q.Timeout+margin)
	defer cancel()
	return s.clients.Call(ctx, q)
}

// round is the outcome of messages that were published together.
type round struct {
	server    serverproc.Answer
	clients   loadgen.Answer
	delivered uint64
	expected  uint64
}

// took is the time from the first message's publishing until the last one was received.
func (r round) took() time.Duration { return time.Duration(r.clients.Ended - r.server.Began) }

// receivers is how many clients get each message.
func (s *session) receivers() int {
	return (s.trial.params.Connections - s.stalled()) / s.trial.params.Channels
}

// publish has messages published, and waits until all clients that read have got them: as long as the patience
// lasts after they have been published. The round lists messages that are missing then.
func (s *session) publish(ctx context.Context, q serverproc.Request) (round, error) {
	type waited struct {
		answer loadgen.Answer
		err    error
	}
	before := s.awaited
	r := round{expected: uint64(q.Messages * s.receivers())} //nolint:gosec // not negative
	s.awaited += r.expected
	timeout := s.config.Patience
	if q.Rate > 0 {
		timeout += time.Duration(float64(q.Messages) / q.Rate * float64(time.Second))
	}
	// The clients wait from before the first message on, so that the time of the last one is exact.
	done := make(chan waited, 1)
	go func() {
		a, err := s.drive(ctx, loadgen.Request{Do: loadgen.Wait, Total: s.awaited, Timeout: timeout})
		done <- waited{a, err}
	}()
	serveCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	r.server, err = s.server.Call(serveCtx, q)
	if err != nil {
		s.clients.Interrupt()
	}
	w := <-done
	r.clients = w.answer
	r.delivered = r.clients.Messages - before
	if err == nil {
		err = w.err
	}
	return r, err
}

// end ends both processes. The clients go first: servers wait for them.
func (s *session) end() error {
	var first error
	if s.clients != nil {
		first = s.clients.Close()
	}
	if s.server != nil {
		if err := s.server.Close(); first == nil {
			first = err
		}
	}
	return first
}

// kill ends both processes at once: after a failure neither can be relied on to end by itself.
func (s *session) kill() {
	if s.clients != nil {
		s.clients.Kill()
	}
	if s.server != nil {
		s.server.Kill()
	}
}

// measured are the figures that every measurement has, from how both processes stood at its begin and end.
func measured(serverCPU, clientsCPU int64, took time.Duration) map[results.Metric]float64 {
	all := float64(serverCPU + clientsCPU)
	m := map[results.Metric]float64{}
	if all > 0 && took > 0 {
		m[results.GeneratorShare] = float64(clientsCPU) / all
		m[results.CoresUsed] = all / float64(took)
	}
	return m
}

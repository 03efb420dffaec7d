package runner

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/control"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/usage"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
)

// StartServer starts a server of NATS or Redis in a process of its own and returns its URL, and a function that ends it.
// program is this program.
func StartServer(ctx context.Context, program, broker string) (url string, end func() error, err error) {
	var s brokerServer
	switch broker {
	case nodes.NATS:
		s, err = startNATS(ctx, program)
	case nodes.Redis:
		s, err = startRedis(ctx)
	default:
		return "", nil, fmt.Errorf("runner: %q has no server, want %s or %s", broker, nodes.NATS, nodes.Redis)
	}
	if err != nil {
		return "", nil, err
	}
	return s.url(), s.end, nil
}

// natsServer is this program as a server of NATS.
type natsServer struct {
	*control.Child[struct{}, nodes.ServerAnswer]
	addr string
}

func startNATS(ctx context.Context, program string) (brokerServer, error) {
	child, ready, err := control.Start[struct{}, nodes.ServerAnswer](ctx, "NATS", exec.Command(program, "nats-server")) //nolint:gosec // it is this program
	if err != nil {
		return nil, err
	}
	return natsServer{child, ready.Addr}, nil
}

func (s natsServer) url() string { return "nats://" + s.addr }
func (s natsServer) end() error  { return s.Close() }
func (s natsServer) kill()       { s.Kill() }

func (s natsServer) cpu(ctx context.Context) (int64, error) {
	a, err := s.Call(ctx, struct{}{})
	return a.CPU, err
}

// redisServer is redis-server, without persistence.
type redisServer struct {
	command *exec.Cmd
	yardsticks.Redis
}

func startRedis(ctx context.Context) (brokerServer, error) {
	addr, err := systems.FreeAddress("127.0.0.1")
	if err != nil {
		return nil, err
	}
	s := &redisServer{}
	s.Host, s.Port, err = net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("runner: %w", err)
	}
	//nolint:gosec // the server of the yardsticks; it lives longer than ctx
	s.command = exec.Command("redis-server", "--bind", s.Host, "--port", s.Port, "--save", "", "--appendonly", "no", "--daemonize", "no")
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("runner: Redis does not start, is it installed? %w", err)
	}
	const often = 5 * time.Millisecond
	for !s.Answers(ctx) {
		if err := pause(ctx, often); err != nil {
			s.kill()
			return nil, fmt.Errorf("runner: Redis does not answer: %w", err)
		}
	}
	return s, nil
}

func (s *redisServer) url() string { return "redis://" + net.JoinHostPort(s.Host, s.Port) }

func (s *redisServer) cpu(context.Context) (int64, error) {
	return usage.CPUOf(s.command.Process.Pid), nil
}

func (s *redisServer) end() error {
	s.kill()
	return nil
}

// kill ends it at once: it has nothing to keep.
func (s *redisServer) kill() {
	_ = s.command.Process.Kill()
	_ = s.command.Wait()
}

package nodes

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"

	"github.com/shoal-go/shoal/broker/natsbroker/embedded"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

// Server is the command of a broker's server.
type Server struct {
	Broker string `arg:"" help:"Name of the broker."`
}

// server is the service of the process of a broker's server.
type server struct {
	worker.Process
	url string
}

// Run runs a server of NATS or Redis on a free port of the loopback interface until in ends.
func (o Server) Run(in io.Reader, out io.Writer) (err error) {
	s := &server{}
	end, err := s.start(o.Broker)
	if err != nil {
		return err
	}
	return errors.Join(worker.Serve(in, out, s), s.Stop(), end())
}

// start starts the server: NATS in this process, Redis as a program, without persistence.
func (s *server) start(broker string) (end func() error, err error) {
	switch broker {
	case NATS:
		embedded, err := embedded.Start(embedded.Options{Addr: "127.0.0.1:0"})
		if err != nil {
			return nil, err
		}
		s.url = "nats://" + embedded.Addr().String()
		return embedded.Close, nil
	case Redis:
		addr, err := worker.FreeAddress("127.0.0.1")
		if err != nil {
			return nil, err
		}
		host, port, _ := net.SplitHostPort(addr)
		command := exec.Command("redis-server", "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--daemonize", "no")
		end, err = worker.StartProgram(command, addr)
		if err != nil {
			return nil, err
		}
		s.url, s.Program = "redis://"+addr, command.Process.Pid
		return end, nil
	}
	return nil, fmt.Errorf("nodes: %q has no server of its own", broker)
}

// URL returns the URL of the server.
func (s *server) URL(_ worker.None, url *string) error {
	*url = s.url
	return nil
}

package nodes

import (
	"fmt"
	"net"
	"os/exec"

	"github.com/shoal-go/shoal/broker/natsbroker/embedded"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

// Broker is the service of a process with the server of a broker.
type Broker struct{ closers worker.Closers }

// Close ends the server.
func (b *Broker) Close() error { return b.closers.Close() }

// Start runs a server of NATS, in this process, or of Redis, as a program and without persistence, on a free port of the loopback
// interface. The address in its answer is a URL.
func (b *Broker) Start(name string, a *worker.Started) error {
	switch name {
	case NATS:
		server, err := embedded.Start(embedded.Options{Addr: "127.0.0.1:0"})
		if err != nil {
			return err
		}
		b.closers = append(b.closers, server.Close)
		a.Addr = "nats://" + server.Addr().String()
		return nil
	case Redis:
		addr, err := worker.FreeAddress("127.0.0.1")
		if err != nil {
			return err
		}
		host, port, _ := net.SplitHostPort(addr)
		command := exec.Command("redis-server", "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--daemonize", "no")
		end, err := worker.StartProgram(command, addr)
		if err != nil {
			return err
		}
		b.closers = append(b.closers, end)
		a.Addr, a.PID = "redis://"+addr, command.Process.Pid
		return nil
	}
	return fmt.Errorf("nodes: %q has no server of its own", name)
}

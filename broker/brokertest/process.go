package brokertest

import (
	"net"
	"os/exec"
	"testing"
	"time"
)

// Process is an Engine that is a process of its own. It is not for use by several goroutines at once.
type Process struct {
	t       testing.TB
	addr    string
	command func(keep bool) *exec.Cmd
	running *exec.Cmd // nil after Kill
}

var _ Engine = (*Process)(nil)

// StartProcess starts an engine, and returns when it accepts connections at addr, host:port. The command is made
// again for each start, and finds the data of the previous one only if keep is true. It ends with the test.
func StartProcess(t testing.TB, addr string, command func(keep bool) *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, addr: addr, command: command}
	t.Cleanup(p.Kill)
	p.Restart(false)
	return p
}

// FreeAddr returns an address of this machine, host:port, at which nothing listens.
func FreeAddr(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// Addr is where the process listens.
func (p *Process) Addr() string { return p.addr }

// Kill ends the process without notice.
func (p *Process) Kill() {
	if p.running == nil {
		return
	}
	_ = p.running.Process.Kill() // fails only if it has ended
	_ = p.running.Wait()         // says that it was killed
	p.running = nil
}

// Restart starts the process after Kill, and returns when it accepts connections.
func (p *Process) Restart(keep bool) {
	p.t.Helper()
	p.running = p.command(keep)
	if err := p.running.Start(); err != nil {
		p.running = nil
		p.t.Fatalf("starting the engine: %v", err)
	}
	Eventually(p.t, "the engine listens at "+p.addr, func() error {
		conn, err := net.Dial("tcp", p.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// Eventually calls try every ten milliseconds until it returns nil, and ends the test after 30 seconds.
func Eventually(t testing.TB, event string, try func() error) {
	t.Helper()
	const patience = 30 * time.Second
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-timeout.C:
			t.Fatalf("after %v still waiting until %s: %v", patience, event, err)
		}
	}
}

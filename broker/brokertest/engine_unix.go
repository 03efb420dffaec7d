//go:build unix

package brokertest

import "syscall"

// Pause stops the process where it is, and returns when it has stopped. Its connections stay.
func (p *Process) Pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	for !status.Stopped() {
		_, err := syscall.Wait4(p.running.Process.Pid, &status, syscall.WUNTRACED, nil)
		if err != nil && err != syscall.EINTR || status.Exited() {
			p.t.Fatalf("waiting for the engine to stop: %v, it has status %v", err, status)
		}
	}
}

// Resume ends Pause.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

func (p *Process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.running.Process.Signal(s); err != nil {
		p.t.Errorf("sending %v to the engine: %v", s, err)
	}
}

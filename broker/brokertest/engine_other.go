//go:build !unix

package brokertest

// Pause fails the test: this system cannot stop a process.
func (p *Process) Pause() {
	p.t.Helper()
	p.t.Fatal("this system cannot stop a process")
}

// Resume does nothing.
func (*Process) Resume() {}

// Package worker runs parts of this program as processes of their own and calls their methods: net/rpc in JSON over standard
// input and output.
package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Child is a process that answers calls. Its methods may be called from any goroutine.
type Child struct {
	// Program is the id of another process whose usage counts instead. 0: there is none. It is set once at most.
	Program int
	name    string
	command *exec.Cmd
	in      io.Closer
	client  *rpc.Client
	errors  head
	exited  chan struct{} // closed when the process has ended
	exit    error         // valid once exited is closed
}

// stream is the connection to a process.
type stream struct {
	io.Reader
	io.WriteCloser
}

// Start starts a process. name stands for it in errors.
func Start(name string, command *exec.Cmd) (*Child, error) {
	c := &Child{name: name, command: command, exited: make(chan struct{})}
	in, err := command.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("worker: %s: %w", name, err)
	}
	answers, out := io.Pipe()
	c.in, command.Stdout, command.Stderr = in, out, &c.errors
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("worker: %s does not start: %w", name, err)
	}
	go func() {
		c.exit = command.Wait()
		close(c.exited)
		_ = out.Close() // ends the client, and every call
	}()
	c.client = jsonrpc.NewClient(stream{answers, in})
	return c, nil
}

// Started says where a server that a process has started listens, and the id of the process that it is, 0 for the one that has
// been called.
type Started struct {
	Addr string
	PID  int
}

// Begin calls a method of a service and returns a function that waits for its result, until the process answers, at most until ctx
// ends; after that the process must be killed.
func Begin[A any](ctx context.Context, c *Child, method string, arguments any) (result func() (A, error)) {
	var answer, none A
	call := c.client.Go(method, arguments, &answer, make(chan *rpc.Call, 1))
	return func() (A, error) {
		select {
		case <-call.Done:
		case <-ctx.Done():
			return none, c.failed(fmt.Errorf("no answer to %s in time: %w", method, ctx.Err()))
		}
		var refused rpc.ServerError
		switch {
		case call.Error == nil:
			return answer, nil
		case errors.As(call.Error, &refused):
			return none, fmt.Errorf("%s: %w", c.name, refused)
		}
		c.Kill() // in case that it has only closed its output
		return none, c.failed(fmt.Errorf("it has ended: %w", errors.Join(c.exit, call.Error)))
	}
}

// failed adds the beginning of the process's standard error to an error.
func (c *Child) failed(err error) error {
	if said := c.errors.String(); said != "" {
		return fmt.Errorf("worker: %s: %w; it said: %s", c.name, err, said)
	}
	return fmt.Errorf("worker: %s: %w", c.name, err)
}

// Close lets the process end, by closing its input, and kills it if it does not within some seconds. It blocks until the process
// has ended. The error says that it did not end well.
func (c *Child) Close() error {
	const exitTime = 15 * time.Second
	_ = c.in.Close()
	killer := time.AfterFunc(exitTime, func() { _ = c.command.Process.Kill() })
	defer killer.Stop()
	<-c.exited
	if c.exit != nil {
		return c.failed(c.exit)
	}
	return nil
}

// Kill ends the process at once, and blocks until it has ended. Calls that wait for an answer fail.
func (c *Child) Kill() {
	_ = c.command.Process.Kill()
	<-c.exited
}

// head keeps the beginning of a process's standard error, where a panic prints its message. Its methods may be called from
// several goroutines.
type head struct {
	mu   sync.Mutex // protects kept
	kept []byte
}

// headBytes is how much of it is kept.
const headBytes = 1500

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = append(h.kept, p[:min(len(p), headBytes-len(h.kept))]...)
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.TrimSpace(string(h.kept))
}

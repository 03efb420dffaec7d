package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Child is a process that answers requests. It is used from one goroutine.
type Child[Q, A any] struct {
	name    string
	command *exec.Cmd
	in      io.WriteCloser
	answers chan []byte // closed when the process has closed its output
	errors  *head
	reading sync.WaitGroup
	ended   bool
}

// Start starts a process. The answer that it gives unasked, when it is ready, is returned too. It blocks
// until then, at most until ctx ends.
func Start[Q, A any](ctx context.Context, name string, command *exec.Cmd) (*Child[Q, A], A, error) {
	var none A
	c := &Child[Q, A]{name: name, command: command, answers: make(chan []byte, 1), errors: &head{}}
	in, err := command.StdinPipe()
	if err != nil {
		return nil, none, fmt.Errorf("control: %s: %w", name, err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, none, fmt.Errorf("control: %s: %w", name, err)
	}
	c.in, command.Stderr = in, c.errors
	if err := command.Start(); err != nil {
		return nil, none, fmt.Errorf("control: %s does not start: %w", name, err)
	}
	c.reading.Go(func() { c.read(out) })
	ready, err := c.await(ctx)
	if err != nil {
		c.Kill()
		return nil, none, err
	}
	return c, ready, nil
}

// read passes on the lines that the process writes.
func (c *Child[Q, A]) read(out io.Reader) {
	defer close(c.answers)
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	for lines.Scan() {
		c.answers <- bytes.Clone(lines.Bytes())
	}
}

// Call sends a request and returns the answer to it. It blocks until it comes, at most until ctx ends. After
// an error of ctx the process no longer answers requests, and is to be killed.
func (c *Child[Q, A]) Call(ctx context.Context, q Q) (A, error) {
	var none A
	line, err := json.Marshal(q)
	if err != nil {
		return none, fmt.Errorf("control: %s: the request cannot be written: %w", c.name, err)
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return none, c.failed(fmt.Errorf("it no longer listens: %w", err))
	}
	return c.await(ctx)
}

func (c *Child[Q, A]) await(ctx context.Context) (A, error) {
	var none A
	select {
	case line, ok := <-c.answers:
		if !ok {
			return none, c.gone()
		}
		answer, err := parse[A](line)
		if err != nil {
			return answer, fmt.Errorf("%s: %w", c.name, err)
		}
		return answer, nil
	case <-ctx.Done():
		return none, c.failed(fmt.Errorf("no answer in time: %w", ctx.Err()))
	}
}

// gone returns why the process has ended.
func (c *Child[Q, A]) gone() error {
	if !c.ended {
		_ = c.command.Process.Kill() // in case that it has only closed its output
		if err := c.wait(); err != nil {
			return err
		}
	}
	return c.failed(errors.New("it has ended"))
}

// failed adds the complaints of the process to an error.
func (c *Child[Q, A]) failed(err error) error {
	if said := c.errors.String(); said != "" {
		return fmt.Errorf("control: %s: %w; it said: %s", c.name, err, said)
	}
	return fmt.Errorf("control: %s: %w", c.name, err)
}

// exitTime is how long a process may take to end once it knows that it should.
const exitTime = 15 * time.Second

// Close lets the process end, by closing its input, and kills it if it does not. It blocks until the process
// is gone. The error says that it did not end well. Calling it again is allowed.
func (c *Child[Q, A]) Close() error {
	if c.ended {
		return nil
	}
	_ = c.in.Close()
	killer := time.AfterFunc(exitTime, func() { _ = c.command.Process.Kill() })
	defer killer.Stop()
	return c.wait()
}

// Kill ends the process at once, and blocks until it is gone. Calling it again is allowed.
func (c *Child[Q, A]) Kill() {
	if !c.ended {
		_ = c.command.Process.Kill()
		_ = c.wait()
	}
}

// Interrupt kills the process without waiting for it: a call that waits for an answer then fails. It may be
// called from any goroutine.
func (c *Child[Q, A]) Interrupt() { _ = c.command.Process.Kill() }

func (c *Child[Q, A]) wait() error {
	c.ended = true
	for range c.answers { // nobody waits for further answers
	}
	c.reading.Wait()
	if err := c.command.Wait(); err != nil {
		return c.failed(err)
	}
	return nil
}

// head keeps the beginning of a process's standard error, where a panic prints its message. It
// may be used from several goroutines.
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

package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// FreeAddress returns an address of the host at which nothing listens.
func FreeAddress(host string) (string, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", fmt.Errorf("worker: %w", err)
	}
	return ln.Addr().String(), ln.Close()
}

// StartProgram starts a server that is another program and has nothing to keep, and blocks until it listens at the address, for
// some seconds at most.
// It ends with this process at the latest.
func StartProgram(command *exec.Cmd, addr string) (end func() error, err error) {
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("worker: %s does not start, is it installed? %w", command.Path, err)
	}
	end = func() error {
		_ = command.Process.Kill()
		_ = command.Wait()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = Poll(ctx, func() bool {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("worker: %s does not listen: %w", command.Path, err), end())
	}
	return end, nil
}

// Poll calls a function every few milliseconds until it returns true. The error is the context's.
func Poll(ctx context.Context, done func() bool) error {
	const often = 2 * time.Millisecond
	again := time.NewTicker(often)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Sleep waits, at most until ctx ends, whose error it then returns.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Closers end the processes and connections of a measurement.
type Closers []func() error

// Close calls them, the latest first.
func (c Closers) Close() (err error) {
	for _, end := range slices.Backward(c) {
		err = errors.Join(err, end())
	}
	return err
}

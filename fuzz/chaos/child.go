package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"strings"

	"github.com/shoal-go/shoal/server/chaostest"
)

const key = "chaos-key"

// child is a server in a process of its own, which ends with its standard input.
type child struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

// begin starts a server.
func begin(command *exec.Cmd) (*child, error) {
	c := &child{command: command}
	command.Stderr = os.Stderr
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if c.in, err = command.StdinPipe(); err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(output)
	return c, command.Start()
}

// end ends the server and returns an error if it has failed.
func (c *child) end() error {
	_ = c.in.Close()
	return c.command.Wait()
}

// ownServer starts this program as a server in a process of its own and sets the target to it.
func ownServer(ctx context.Context, t *chaostest.Target) (stop func() error, err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child, err := begin(exec.CommandContext(ctx, program, "-serve"))
	if err != nil {
		return nil, err
	}
	address, err := child.out.ReadString('\n') // printed when it is ready
	if err != nil {
		return nil, errors.Join(err, child.end())
	}
	address = strings.TrimSpace(address)
	t.URL, t.Process = "ws://"+address+"/ws/uploads", child.command.Process.Pid
	t.First, t.Subprotocol = []byte(`{"type":"auth","token":"good"}`), "shoal.v1"
	number := 0
	t.Publish = func(int) error {
		number++ // over all attacks
		message := fmt.Appendf(nil, `{"action":"note","number":%d,"text":"%s"}`, number, strings.Repeat("x", 16<<10))
		return post(ctx, "http://"+address+"/v1/uploads/chaos-0/messages", message)
	}
	return child.end, nil
}

// peerServer starts a system of benchmarks/compare, which answers calls over its standard input and output, and whose
// clients speak its plain messages. It sets the target to it.
func peerServer(ctx context.Context, line string, t *chaostest.Target) (stop func() error, err error) {
	program, system, ok := strings.Cut(line, " ")
	if !ok {
		return nil, fmt.Errorf("-peer is %q, want a program and a system, such as \"bin/compare gws\"", line)
	}
	child, err := begin(exec.CommandContext(ctx, program, "process", "server", system)) // given by the user
	if err != nil {
		return nil, err
	}
	calls := jsonrpc.NewClient(struct {
		io.Reader
		io.WriteCloser
	}{child.out, child.in})
	var started struct{ Addr string }
	if err := calls.Call("Server.Start", struct{ System string }{system}, &started); err != nil {
		return nil, fmt.Errorf("-peer %q does not start: %w", line, errors.Join(err, child.end()))
	}
	t.URL, t.Process = "ws://"+started.Addr+"/ws", child.command.Process.Pid
	auth := func(int) []byte { return []byte(`{"type":"auth","token":"user-1"}`) }
	t.First, t.Message, t.Token = auth(0), auth, auth
	t.Subscribe = func(n int) []byte { return fmt.Appendf(nil, `{"action":"subscribe_upload","upload_id":"u%d"}`, n) }
	t.Resume = t.Subscribe // they have no recovery
	t.Publish = func(int) error {
		load := struct{ Channels, Messages, Bytes int }{1, 1, 16 << 10}
		return calls.Call("Server.Publish", load, &struct{}{})
	}
	return child.end, nil
}

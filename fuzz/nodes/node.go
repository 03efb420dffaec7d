//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	secret = "a-secret-of-this-command-alone-0123456789"
	apiKey = "nodes-key"
	// gateway is the address of this process and of the brokers.
	gateway = "10.77.0.1"
)

// setUpNetwork makes a bridge, to which each node has a link.
func setUpNetwork(ctx context.Context) error {
	return errors.Join(
		ip(ctx, "link set lo up"),
		ip(ctx, "link add name shoal0 type bridge forward_delay 0"),
		ip(ctx, "addr add "+gateway+"/24 dev shoal0"),
		ip(ctx, "link set shoal0 up"),
	)
}

func ip(ctx context.Context, words string) error { return execute(ctx, "ip", strings.Fields(words)...) }

func execute(ctx context.Context, name string, args ...string) error {
	output, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, output)
	}
	return nil
}

// node is a shoal process in a network namespace of its own. Its methods but the addresses belong to one goroutine.
type node struct {
	index, generation int
	program, folder   string
	args              []string
	command           *exec.Cmd
}

func nodeHost(index int) string { return fmt.Sprintf("10.77.0.%d", 10+index) }
func (n *node) host() string    { return nodeHost(n.index) }
func (n *node) url() string     { return "http://" + n.host() + ":8080" }
func (n *node) device() string  { return fmt.Sprintf("n%d-%d", n.index, n.generation) }

// start starts the process: it waits for its network before it becomes shoal.
func (n *node) start(ctx context.Context) error {
	n.generation++
	name := filepath.Join(n.folder, fmt.Sprint("node", n.index))
	logs, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = logs.Close() }()
	args := append([]string{
		"-c", `read _ && exec "$0" "$@"`, n.program, "serve",
		"--addr=" + n.host() + ":8080", "--admin-addr=" + n.host() + ":9090",
		"--jwt-secret=" + secret, "--api-key=" + apiKey, "--authorize=open", "--drain=2s", "--history-messages=10000",
		"--ping-interval=2s", "--idle-timeout=6s", fmt.Sprint("--node-name=node", n.index),
	}, n.args...)
	n.command = exec.Command("sh", args...) // given by the user of this command
	n.command.Stdout, n.command.Stderr = logs, logs
	n.command.Env = append(os.Environ(), "TMPDIR="+n.folder)
	n.command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	input, err := n.command.StdinPipe()
	if err != nil {
		return err
	}
	if err := n.command.Start(); err != nil {
		return err
	}
	pid := n.command.Process.Pid
	inside := func(words string) error {
		return execute(ctx, "nsenter", append([]string{"-t", fmt.Sprint(pid), "-n", "ip"}, strings.Fields(words)...)...)
	}
	err = errors.Join(
		ip(ctx, fmt.Sprintf("link add name %s type veth peer name eth0 netns %d", n.device(), pid)),
		ip(ctx, "link set "+n.device()+" master shoal0 up"),
		inside("addr add "+n.host()+"/24 dev eth0"),
		inside("link set eth0 up"),
		inside("link set lo up"),
	)
	_, failed := io.WriteString(input, "\n")
	return errors.Join(err, failed)
}

// link sets the node's link "up" or "down".
func (n *node) link(ctx context.Context, state string) error {
	return ip(ctx, "link set "+n.device()+" "+state)
}

func (n *node) signal(s syscall.Signal) error { return n.command.Process.Signal(s) }

// terminate ends the node in an orderly way.
func (n *node) terminate(ctx context.Context) error {
	if err := n.signal(syscall.SIGTERM); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- n.command.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("node %d ended with %w:\n%s", n.index, err, n.lastLines())
		}
		return nil
	case <-time.After(30 * time.Second):
		n.kill()
		return fmt.Errorf("node %d did not end within 30 s", n.index)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill ends the node as if its machine had lost power.
func (n *node) kill() {
	_ = n.command.Process.Kill()
	_ = n.command.Wait()
}

func (n *node) awaitReady(ctx context.Context) error {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	err := poll(ctx, fmt.Sprintf("node %d is ready", n.index), func() bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.host()+":9090/readyz", nil)
		if err != nil {
			return false
		}
		response, err := client.Do(request)
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w; its log ends with:\n%s", err, n.lastLines())
	}
	return err
}

func (n *node) lastLines() string {
	text, _ := os.ReadFile(filepath.Join(n.folder, fmt.Sprint("node", n.index)))
	lines := strings.Split(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// config holds the flags.
type config struct {
	program, broker, natsServer string
	duration                    time.Duration
	verbose                     bool
}

func main() {
	runtime.LockOSThread() // the other processes are ended with the thread that has started them
	var c config
	flag.StringVar(&c.program, "program", "bin/shoal", "the shoal command")
	flag.StringVar(&c.broker, "broker", "redis", "redis, redis-cluster, nats or nats-embedded")
	flag.StringVar(&c.natsServer, "nats-server", "nats-server", "program for -broker nats")
	flag.DurationVar(&c.duration, "duration", 2*time.Minute, "time of the faults")
	flag.BoolVar(&c.verbose, "v", false, "print each fault")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	work := c.run
	if os.Getenv(inNamespace) == "" {
		work = again
	}
	if err := work(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "nodes:", err)
		os.Exit(1)
	}
}

// inNamespace is set in the environment of the process that has a network of its own.
const inNamespace = "SHOAL_FUZZ_NODES"

// again runs this command in a new network namespace, which disappears with it.
func again(ctx context.Context) error {
	if os.Getuid() != 0 {
		return errors.New("needs root, for network namespaces")
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, program, os.Args[1:]...) //nolint:gosec // this program again
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.Env = append(os.Environ(), inNamespace+"=1")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	return command.Run()
}

// run starts everything, applies faults for the duration and prints the account.
func (c config) run(ctx context.Context) (err error) {
	if err := setUpNetwork(ctx); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "shoal-nodes")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	args, stop, err := c.startBroker(ctx, folder)
	if err != nil {
		return err
	}
	defer stop()
	var nodes []*node
	defer func() {
		for _, n := range nodes {
			n.kill()
		}
	}()
	for i := range 3 {
		n := &node{index: i, program: c.program, folder: folder, args: args(i)}
		if err := n.start(ctx); err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		if err := n.awaitReady(ctx); err != nil {
			return err
		}
	}
	t := startTraffic(ctx, nodes)
	faults, err := c.disturb(ctx, nodes, t)
	a := t.end(ctx)
	fmt.Printf("| `%s` | %v | %s | %d | %d | %d | %d | %d | %d | %.1f s |\n", c.broker, c.duration, faults, a.published,
		a.unsure, a.delivered, a.announced, a.repeated, len(a.problems), a.longest.Seconds())
	return errors.Join(append([]error{err}, a.problems...)...)
}

// disturb applies one fault after the other to one node after the other, and returns their counts.
func (c config) disturb(ctx context.Context, nodes []*node, t *traffic) (faults string, err error) {
	all := []struct {
		name  string
		count int
		do    func(*node) error
	}{
		{name: "restarted", do: func(n *node) error { return errors.Join(n.terminate(ctx), n.start(ctx)) }},
		{name: "killed", do: func(n *node) error {
			n.kill()
			return n.start(ctx)
		}},
		{name: "cut off", do: func(n *node) error {
			return errors.Join(n.link(ctx, "down"), wait(ctx, 10*time.Second), n.link(ctx, "up"))
		}},
		{name: "frozen", do: func(n *node) error {
			return errors.Join(n.signal(syscall.SIGSTOP), wait(ctx, 5*time.Second), n.signal(syscall.SIGCONT))
		}},
	}
	end := time.Now().Add(c.duration)
	for turn := 0; time.Now().Before(end) && err == nil; turn++ {
		n, fault := nodes[turn%len(nodes)], &all[turn/len(nodes)%len(all)]
		if c.verbose {
			fmt.Fprintf(os.Stderr, "%s node %d is %s\n", time.Now().Format(time.TimeOnly), n.index, fault.name)
		}
		fault.count++
		if err = errors.Join(fault.do(n), n.awaitReady(ctx)); err == nil {
			err = t.awaitProgress(ctx)
		}
	}
	var words []string
	for _, f := range all {
		words = append(words, fmt.Sprintf("%d %s", f.count, f.name))
	}
	return strings.Join(words, ", "), err
}

// wait waits, or returns the error of a context that has ended.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poll waits until a condition holds, and names it if it does not within a minute.
func poll(ctx context.Context, what string, holds func() bool) error {
	for end := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(end) {
			return fmt.Errorf("waited a minute in vain until %s", what)
		}
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

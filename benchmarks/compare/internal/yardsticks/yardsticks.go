// Package yardsticks runs the benchmark clients that NATS and Redis come with, for a server that runs already.
package yardsticks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
)

// Result is the result.
type Result struct {
	PerSecond float64
	// CPU is the processor time of the client, and SubscriberCPU of the subscriber, where there is one.
	CPU, SubscriberCPU time.Duration
}

// rates are numbers of messages per second, as the clients report them. The last one is the total.
var natsRate, redisRate = regexp.MustCompile(`stats: ([0-9,]+) msgs/sec`), regexp.MustCompile(`(?m)^"[^"]*","([0-9.]+)"`)

// rate reads a rate from a client's output.
func rate(said []byte, form *regexp.Regexp) (float64, error) {
	all := form.FindAllSubmatch(said, -1)
	if len(all) == 0 {
		return 0, fmt.Errorf("yardsticks: the client says no rate: %.300q", said)
	}
	perSecond, err := strconv.ParseFloat(strings.ReplaceAll(string(all[len(all)-1][1]), ",", ""), 64)
	if err != nil || !(perSecond > 0) {
		return 0, fmt.Errorf("yardsticks: the client's rate is no number: %.300q", all[len(all)-1][0])
	}
	return perSecond, nil
}

// client is one that runs.
type client struct {
	command *exec.Cmd
	said    bytes.Buffer
}

func start(ctx context.Context, program string, arguments ...string) (*client, error) {
	c := &client{command: exec.CommandContext(ctx, program, arguments...)} // one of the yardsticks
	c.command.Stdout, c.command.Stderr = &c.said, &c.said
	if err := c.command.Start(); err != nil {
		return nil, fmt.Errorf("yardsticks: the client does not start: %w", err)
	}
	return c, nil
}

// end waits for the client to end, and returns its rate and its processor time.
func (c *client) end(form *regexp.Regexp) (float64, time.Duration, error) {
	if err := c.command.Wait(); err != nil {
		return 0, 0, fmt.Errorf("yardsticks: %s: %w, it said: %.500q", c.command, err, c.said.Bytes())
	}
	perSecond, err := rate(c.said.Bytes(), form)
	return perSecond, c.command.ProcessState.UserTime() + c.command.ProcessState.SystemTime(), err
}

// NATS says where the server is and how its client is called.
type NATS struct {
	Program, URL string
	// Stream is the broker's, with the subjects that it stores from, and Live the prefix that it publishes them under
	// again.
	Stream, Subject, Live string
}

// The clients of NATS.
const (
	Core       = "nats bench, core"               // published and received, not stored
	Sync       = "nats bench, js sync"            // stored in memory, each client waits for each message
	Async      = "nats bench, js async"           // likewise, batches that are waited for
	SameStream = "nats bench, js async, received" // likewise, in the broker's stream, and received from there
)

// Of lists the clients of a broker, none for a broker without any.
func Of(broker string) []string {
	switch broker {
	case "nats":
		return []string{Core, Sync, Async, SameStream}
	case "redis":
		return []string{Plain, Stored}
	}
	return nil
}

// ModuleOf is the module of the clients of a broker.
func ModuleOf(broker string) string {
	if broker == "redis" {
		return RedisModule
	}
	return NATSModule
}

// settling is how long a subscriber is given before messages come: it does not say when it has subscribed.
const settling = 300 * time.Millisecond

// Run runs one of the clients of NATS, with a message in flight for each publisher.
func (n NATS) Run(ctx context.Context, name string, l results.Params) (came Result, err error) {
	common := []string{"--server", n.URL, "--no-progress", "--msgs", strconv.Itoa(l.Messages), "--size", fmt.Sprintf("%dB", l.Bytes)}
	many := []string{"--multisubject", "--multisubjectmax", strconv.Itoa(l.Channels)}
	own := []string{"--create", "--storage", "memory"}
	inFlight := strconv.Itoa(l.Publishers)
	var publish []string
	live := ""
	switch name {
	case Core:
		live, publish = "core.>", slices.Concat([]string{"bench", "pub", "core"}, many)
	case Sync:
		publish = slices.Concat([]string{"bench", "js", "pub", "sync", "own", "--clients", inFlight}, many, own)
	case Async:
		publish = slices.Concat([]string{"bench", "js", "pub", "async", "own", "--batch", inFlight}, many, own)
	case SameStream:
		live = n.Live
		publish = slices.Concat([]string{"bench", "js", "pub", "async", n.Subject, "--batch", inFlight, "--stream", n.Stream}, many)
	default:
		return came, fmt.Errorf("yardsticks: NATS has no client %q", name)
	}
	// A message lost on the way to a subscriber would be awaited without end.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var subscriber *client
	if live != "" {
		if subscriber, err = start(ctx, n.Program, slices.Concat([]string{"bench", "sub", live}, common)...); err != nil {
			return came, err
		}
		defer func() { err = errors.Join(err, subscriber.await(cancel, &came)) }()
		time.Sleep(settling)
	}
	publisher, err := start(ctx, n.Program, slices.Concat(publish, common)...)
	if err != nil {
		return came, err
	}
	came.PerSecond, came.CPU, err = publisher.end(natsRate)
	return came, err
}

// await waits for a subscriber to get the last messages, and corrects the result by its report.
func (c *client) await(cancel func(), came *Result) error {
	const patience = 5 * time.Second
	late := time.AfterFunc(patience, cancel)
	defer late.Stop()
	perSecond, cpu, err := c.end(natsRate)
	came.PerSecond, came.SubscriberCPU = min(came.PerSecond, perSecond), cpu
	return err
}

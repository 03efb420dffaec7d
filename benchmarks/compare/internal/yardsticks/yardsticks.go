// Package yardsticks runs the benchmark clients that NATS and Redis come with, for a server that runs already.
package yardsticks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
)

// Result is the result.
type Result struct {
	PerSecond float64
	// CPU is the processor time of the client, and SubscriberCPU of the subscriber, where there is one.
	CPU, SubscriberCPU time.Duration
}

// natsRate and redisRate match the messages per second in the clients' output. The last match is the total.
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

// run runs a client, and returns the rate that it reports in this form and its processor time.
func run(ctx context.Context, form *regexp.Regexp, program string, arguments ...string) (float64, time.Duration, error) {
	command := exec.CommandContext(ctx, program, arguments...) // one of the yardsticks
	said, err := command.CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("yardsticks: %s: %w, it said: %.500q", command, err, said)
	}
	perSecond, err := rate(said, form)
	return perSecond, command.ProcessState.UserTime() + command.ProcessState.SystemTime(), err
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

const (
	// settling is how long a subscriber is given before messages come: it does not say when it has subscribed.
	settling = 300 * time.Millisecond
	// lastMessages is how long a subscriber is given to get the last messages.
	lastMessages = 5 * time.Second
)

// Run runs one of the clients of NATS, with a message in flight for each publisher.
func (n NATS) Run(ctx context.Context, name string, l results.Params) (came Result, err error) {
	common := []string{"--server", n.URL, "--no-progress", "--msgs", strconv.Itoa(l.Messages), "--size", fmt.Sprintf("%dB", l.Bytes)}
	many := []string{"--multisubject", "--multisubjectmax", strconv.Itoa(l.Channels)}
	own := []string{"--create", "--storage", "memory"}
	inFlight := strconv.Itoa(l.Publishers)
	var publish []string
	live, received := "", math.Inf(1) // messages per second, of a subscriber
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
	var subscribing errgroup.Group
	if live != "" {
		subscribing.Go(func() (err error) {
			received, came.SubscriberCPU, err = run(ctx, natsRate, n.Program, slices.Concat([]string{"bench", "sub", live}, common)...)
			return err
		})
		time.Sleep(settling)
	}
	sent, cpu, err := run(ctx, natsRate, n.Program, slices.Concat(publish, common)...)
	defer time.AfterFunc(lastMessages, cancel).Stop()
	err = errors.Join(err, subscribing.Wait())
	came.PerSecond, came.CPU = min(sent, received), cpu
	return came, err
}

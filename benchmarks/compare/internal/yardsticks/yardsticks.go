// Package yardsticks runs the benchmark clients that NATS and Redis come with, for a server that runs already.
package yardsticks

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// The clients. Those of Redis have a subscriber each that reads and does nothing.
const (
	Core       = "nats bench, core"               // published and received, not stored
	Sync       = "nats bench, js sync"            // stored in memory, each client waits for each message
	Async      = "nats bench, js async"           // likewise, batches that are waited for
	SameStream = "nats bench, js async, received" // likewise, in the broker's stream, and received from there
	Plain      = "redis-benchmark, PUBLISH"
	Stored     = "redis-benchmark, same script" // that the broker stores messages with
)

// client is one of them.
type client struct {
	name, broker string
	// about is about how many messages a second it publishes.
	about float64
	// publish is its command, in which N stands for the messages in flight, and subscribe the subject of a second client, which
	// receives ("": no second client). Both are for NATS.
	publish, subscribe string
}

var clients = []client{
	{Core, "nats", 150_000, "bench pub core", "core.>"},
	{Sync, "nats", 20_000, "bench js pub sync own --clients N --create --storage memory", ""},
	{Async, "nats", 40_000, "bench js pub async own --batch N --create --storage memory", ""},
	{SameStream, "nats", 40_000, "bench js pub async upload --batch N --stream SHOAL", "live.upload.>"},
	{name: Plain, broker: "redis", about: 150_000},
	{name: Stored, broker: "redis", about: 40_000},
}

// Of lists the names of a broker's clients, none for a broker without any.
func Of(broker string) (names []string) {
	for _, c := range clients {
		if c.broker == broker {
			names = append(names, c.name)
		}
	}
	return names
}

// Entries lists all clients as systems.
func Entries() (all []systems.Entry) {
	for _, c := range clients {
		module := map[string]string{"nats": NATSModule, "redis": RedisModule}[c.broker]
		all = append(all, systems.Entry{Name: c.name, Kind: systems.Yardstick, Module: module})
	}
	return all
}

// Server is a server with its clients.
type Server struct {
	at *url.URL
	// nats is the path of NATS's client.
	nats string
	// script is the name of the script that the broker stores messages with in Redis, and key the beginning of the keys.
	script, key string
}

// Open returns the clients for the server of a broker. store has the broker store a message, from which those of Redis learn how.
// The client of NATS is installed if it is missing, as progress then says.
func Open(ctx context.Context, at string, store func() error, progress io.Writer) (s Server, err error) {
	if s.at, err = url.Parse(at); err != nil {
		return s, fmt.Errorf("yardsticks: %w", err)
	}
	if s.at.Scheme == "nats" {
		s.nats, err = NATSProgram(ctx, progress)
	} else {
		s.script, s.key, err = findScript(ctx, s.at.Host, store)
	}
	return s, err
}

// Result is the result: how many messages were published at which rate.
type Result struct {
	Messages, PerSecond float64
	// CPU is the processor time of the client, and SubscriberCPU of the subscriber, where that is not the client's.
	CPU, SubscriberCPU time.Duration
}

// Run runs a client for about some time, with a message in flight for each publisher. It blocks until the client ends, which it
// does at the latest with ctx.
func (s Server) Run(ctx context.Context, name string, p results.Params, d time.Duration) (r Result, err error) {
	at := slices.IndexFunc(clients, func(c client) bool { return c.name == name })
	if at < 0 {
		return r, fmt.Errorf("yardsticks: there is no client %q", name)
	}
	c := clients[at]
	p.Messages = max(int(c.about*d.Seconds()), p.Publishers)
	if c.broker == "nats" {
		r, err = s.runNATS(ctx, c, p)
	} else {
		r, err = s.runRedis(ctx, c, p)
	}
	r.Messages = float64(p.Messages)
	return r, err
}

const (
	// settling is how long a subscriber is given before messages come: it does not say when it has subscribed.
	settling = 300 * time.Millisecond
	// lastMessages is how long a subscriber is given to get the last messages.
	lastMessages = 5 * time.Second
)

func (s Server) runNATS(ctx context.Context, c client, p results.Params) (r Result, err error) {
	common := fmt.Sprintf(" --server %s --no-progress --msgs %d --size %dB", s.at, p.Messages, p.Bytes)
	nats := func(ctx context.Context, arguments string) (float64, time.Duration, error) {
		return run(ctx, natsRate, s.nats, strings.Fields(arguments+common)...)
	}
	// A message lost on the way to a subscriber would be awaited without end.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	received := math.Inf(1) // messages per second, of a subscriber
	var subscribing errgroup.Group
	if c.subscribe != "" {
		subscribing.Go(func() (err error) {
			received, r.SubscriberCPU, err = nats(ctx, "bench sub "+c.subscribe)
			return err
		})
		time.Sleep(settling)
	}
	publish := strings.ReplaceAll(c.publish, " N", " "+strconv.Itoa(p.Publishers))
	sent, cpu, err := nats(ctx, fmt.Sprintf("%s --multisubject --multisubjectmax %d", publish, p.Channels))
	defer time.AfterFunc(lastMessages, cancel).Stop()
	err = errors.Join(err, subscribing.Wait())
	r.PerSecond, r.CPU = min(sent, received), cpu
	return r, err
}

// natsRate and redisRate match the messages per second in the clients' output. The last match is the total.
var natsRate, redisRate = regexp.MustCompile(`stats: ([0-9,]+) msgs/sec`), regexp.MustCompile(`(?m)^"[^"]*","([0-9.]+)"`)

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

const (
	// connections is how many redis-benchmark has at most. More in flight are pipelined.
	connections = 64
	// drawn is the text that redis-benchmark replaces by a number of 12 digits.
	drawn = "__rand_int__"
	// channel and counter are the beginnings of the channels that the broker tells messages and positions on.
	channel, counter = "upload:u", "shoal.at:upload:u"
)

func (s Server) runRedis(ctx context.Context, c client, p results.Params) (r Result, err error) {
	command := []string{"PUBLISH", channel + drawn}
	if c.name == Stored {
		command = []string{"EVALSHA", s.script, "1", s.key + drawn}
	}
	drain, err := subscribe(ctx, s.at.Host, p.Channels)
	if err != nil {
		return r, err
	}
	defer drain()
	arguments := append([]string{
		"-h", s.at.Hostname(), "-p", s.at.Port(), "--csv", "-n", strconv.Itoa(p.Messages), "-r", strconv.Itoa(p.Channels),
		"-c", strconv.Itoa(min(p.Publishers, connections)), "-P", strconv.Itoa(max(p.Publishers/connections, 1)),
	}, append(command, strings.Repeat("x", p.Bytes))...)
	r.PerSecond, r.CPU, err = run(ctx, redisRate, "redis-benchmark", arguments...)
	return r, err
}

// subscribe reads messages of the channels until the function that it returns is called.
func subscribe(ctx context.Context, addr string, channels int) (stop func(), err error) {
	line := []byte("SUBSCRIBE")
	for i := range channels {
		line = fmt.Appendf(line, " %s%012d %s%012d", channel, i, counter, i)
	}
	conn, err := ask(ctx, addr, string(line))
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, onlyReader{conn})
	}()
	return func() { _ = conn.Close(); <-ended }, nil
}

// onlyReader makes io.Copy read as subscribers do.
type onlyReader struct{ io.Reader }

// ask connects and sends a line.
func ask(ctx context.Context, addr, line string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("yardsticks: %w", err)
	}
	if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

var evalsha = regexp.MustCompile(`(?i)"evalsha" "([0-9a-f]{40})" "1" "([^"]*)" "`)

// findScript returns the name of the script that a call of store makes the node use, and the beginning of the keys.
func findScript(ctx context.Context, addr string, store func() error) (script, key string, err error) {
	conn, err := ask(ctx, addr, "MONITOR")
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	const patience = 10 * time.Second
	_ = conn.SetDeadline(time.Now().Add(patience))
	lines := bufio.NewScanner(conn)
	if !lines.Scan() {
		return "", "", fmt.Errorf("yardsticks: MONITOR of Redis failed: %w", cmp.Or(lines.Err(), io.EOF))
	}
	if err := store(); err != nil {
		return "", "", err
	}
	for lines.Scan() {
		// The script is also called for other keys, and others with no more than a key.
		if m := evalsha.FindStringSubmatch(lines.Text()); m != nil {
			return m[1], strings.TrimSuffix(m[2], "0"), nil
		}
	}
	return "", "", fmt.Errorf("yardsticks: no script was called: %w", cmp.Or(lines.Err(), io.EOF))
}

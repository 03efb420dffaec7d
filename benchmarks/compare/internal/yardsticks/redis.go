package yardsticks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
)

// Redis says where the server is.
type Redis struct {
	Host, Port string
	// Script is the name of the script that the broker stores messages with.
	Script string
	// Key and Channels are the beginnings of the names that messages are stored under and told on.
	Key      string
	Channels []string
}

// The clients of Redis, each with a subscriber that reads and does nothing.
const (
	Plain  = "redis-benchmark, PUBLISH"
	Stored = "redis-benchmark, same script"
)

// RedisAt returns the clients for the server at a URL.
func RedisAt(at string) (r Redis, err error) {
	u, err := url.Parse(at)
	if err != nil {
		return r, fmt.Errorf("yardsticks: %w", err)
	}
	return Redis{Host: u.Hostname(), Port: u.Port()}, nil
}

// connections is how many redis-benchmark has at most. More in flight are pipelined.
const connections = 64

// drawn is the text that redis-benchmark replaces by a number of 12 digits.
const drawn = "__rand_int__"

// Run runs one of the clients of Redis, with a message in flight for each publisher.
func (r Redis) Run(ctx context.Context, name string, l results.Params) (came Result, err error) {
	payload := strings.Repeat("x", l.Bytes)
	command := []string{"PUBLISH", r.Channels[0] + drawn, payload}
	switch name {
	case Plain:
	case Stored:
		command = []string{"EVALSHA", r.Script, "1", r.Key + drawn, payload}
	default:
		return came, fmt.Errorf("yardsticks: Redis has no client %q", name)
	}
	drain, err := r.subscribe(ctx, l.Channels)
	if err != nil {
		return came, err
	}
	defer drain()
	arguments := append([]string{
		"-h", r.Host, "-p", r.Port, "--csv", "-n", strconv.Itoa(l.Messages), "-r", strconv.Itoa(l.Channels),
		"-c", strconv.Itoa(min(l.Publishers, connections)), "-P", strconv.Itoa(max(l.Publishers/connections, 1)),
	}, command...)
	came.PerSecond, came.CPU, err = run(ctx, redisRate, "redis-benchmark", arguments...)
	return came, err
}

// subscribe reads messages of the channels until the function that it returns is called.
func (r Redis) subscribe(ctx context.Context, channels int) (stop func(), err error) {
	var names []string
	for _, beginning := range r.Channels {
		for i := range channels {
			names = append(names, fmt.Sprintf("%s%012d", beginning, i))
		}
	}
	conn, err := r.ask(ctx, "SUBSCRIBE "+strings.Join(names, " "))
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
func (r Redis) ask(ctx context.Context, line string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(r.Host, r.Port))
	if err != nil {
		return nil, fmt.Errorf("yardsticks: %w", err)
	}
	if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

var evalsha = regexp.MustCompile(`(?i)"evalsha" "([0-9a-f]{40})" "1" "([^"]*)" "`)

// FindScript returns the name of the script that a call of store makes the node use, and the key.
func (r Redis) FindScript(ctx context.Context, store func() error) (script, key string, err error) {
	conn, err := r.ask(ctx, "MONITOR")
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	const patience = 10 * time.Second
	_ = conn.SetDeadline(time.Now().Add(patience))
	lines := bufio.NewReader(conn)
	if _, err := lines.ReadString('\n'); err != nil {
		return "", "", fmt.Errorf("yardsticks: MONITOR of Redis failed: %w", err)
	}
	if err := store(); err != nil {
		return "", "", err
	}
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return "", "", fmt.Errorf("yardsticks: no script was called: %w", err)
		}
		// The script is also called for other keys, and others with no more than a key.
		if m := evalsha.FindStringSubmatch(line); m != nil {
			return m[1], m[2], nil
		}
	}
}

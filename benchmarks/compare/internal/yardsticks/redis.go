package yardsticks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
)

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
			return m[1], strings.TrimSuffix(m[2], "0"), nil
		}
	}
}

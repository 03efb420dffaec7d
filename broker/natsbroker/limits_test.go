package natsbroker_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker/brokertest"
)

// events is a log that a test reads while it is written.
type events struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (e *events) Write(line []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.Write(line)
}

// count returns how often a text occurs.
func (e *events) count(text string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Count(e.text.String(), text)
}

func (e *events) logger() *slog.Logger { return slog.New(slog.NewTextHandler(e, nil)) }

// jetStream returns a client of a server's streams.
func jetStream(t *testing.T, s *server.Server) jetstream.JetStream {
	t.Helper()
	return jetStreamAt(t, s.ClientURL())
}

func jetStreamAt(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	return jetStreamOn(t, connect(t, url))
}

func jetStreamOn(t *testing.T, conn *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// streamOf returns the stream of the nodes.
func streamOf(t *testing.T, js jetstream.JetStream) jetstream.Stream {
	t.Helper()
	stream, err := js.Stream(t.Context(), "SHOAL")
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func streamInfo(t *testing.T, js jetstream.JetStream) *jetstream.StreamInfo {
	t.Helper()
	return streamOf(t, js).CachedInfo()
}

// awaitChecks returns when a node has checked the stream several times: each check stores a message.
func awaitChecks(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	const checks = 3
	begin := streamInfo(t, js).State.LastSeq
	brokertest.Eventually(t, "checks of the stream", func() error {
		if streamInfo(t, js).State.LastSeq < begin+checks {
			return errNotYet
		}
		return nil
	})
}

// TestBroker_KeepsBoundOfTheStream: a bound that an operator has set protects a server which others use too. Nodes
// without one of their own leave it, a node with a larger one raises it, and one that wants none removes it. Both log
// the values.
func TestBroker_KeepsBoundOfTheStream(t *testing.T) {
	s := serve(t)
	opt := quick(s)
	opt.ProbeInterval = 40 * time.Millisecond
	n := join(t, opt)
	js := jetStream(t, s)
	const bound = 50 << 20
	change(t, js, func(c *jetstream.StreamConfig) { c.MaxBytes = bound })
	awaitChecks(t, js)
	n.stop()
	for _, c := range []struct {
		option, want int64
		logged       string
	}{
		{0, bound, ""},
		{bound / 2, bound, ""},
		{2 * bound, 2 * bound, fmt.Sprintf("limit=max_bytes before=%d now=%d", bound, 2*bound)},
		{0, 2 * bound, ""},
		{-1, -1, fmt.Sprintf("limit=max_bytes before=%d now=-1", 2*bound)},
	} {
		var log events
		opt.MaxBytes, opt.Logger = c.option, log.logger()
		n := join(t, opt)
		awaitChecks(t, js)
		n.stop()
		if got := streamInfo(t, js).Config.MaxBytes; got != c.want {
			t.Errorf("with MaxBytes %d the stream has the bound %d, want %d", c.option, got, c.want)
		}
		raised, text := log.count("raised a limit"), log.text.String()
		if raised != min(len(c.logged), 1) || !strings.Contains(text, c.logged) {
			t.Errorf("with MaxBytes %d the log is %q, want %q once, or nothing of limits", c.option, text, c.logged)
		}
	}
}

// TestBroker_LogsAnObstacleOnce: a limit that the server does not let nodes raise is logged once, not by each check.
func TestBroker_LogsAnObstacleOnce(t *testing.T) {
	s := serve(t, func(o *server.Options) {
		o.JetStreamMaxMemory, o.JetStreamLimits.Duplicates = 4<<20, time.Minute
	})
	opt := quick(s)
	opt.MaxBytes, opt.TTL = 2<<20, time.Minute
	join(t, opt).stop()
	var log events
	opt.MaxBytes, opt.TTL, opt.Replicas, opt.Logger = 8<<20, time.Hour, 3, log.logger()
	var updates atomic.Int64
	conn := client(t, s)
	_, err := conn.Subscribe("$JS.API.STREAM.UPDATE.SHOAL", func(*nats.Msg) { updates.Add(1) })
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	join(t, opt)
	awaitChecks(t, jetStream(t, s))
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	const attempts = 4 // of the age, and of each limit that the server refuses
	if tried := updates.Load(); tried > attempts {
		t.Errorf("the node has tried %d updates of the stream, want at most %d", tried, attempts)
	}
	for _, line := range []string{
		"short duplicate window", "no room for a larger stream", "limit=max_age before=1m0s now=1h0m0s",
		"too few replicas",
	} {
		if found := log.count(line); found != 1 {
			t.Errorf("%q was logged %d times, want once", line, found)
		}
	}
}

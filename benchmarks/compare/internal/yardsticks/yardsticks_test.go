package yardsticks

import (
	"bufio"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRatesAreRead(t *testing.T) {
	nats := "04:09:27 Using stream: SHOAL\n  [1] 160 msgs/sec ~ 40 KiB/sec\n" +
		"NATS JetStream synchronous publisher aggregated stats: 9,459 msgs/sec ~ 9.6 MiB/sec ~ min: 567.62us\n"
	redis := "\"test\",\"rps\",\"avg_latency_ms\"\n\"EVALSHA abc 1 k x\",\"54321.50\",\"0.5\"\n"
	if got, err := rate([]byte(nats), natsRate); err != nil || got != 9459 {
		t.Errorf("the rate is %v, %v", got, err)
	}
	if got, err := rate([]byte(redis), redisRate); err != nil || got != 54321.5 {
		t.Errorf("the rate is %v, %v", got, err)
	}
	for _, said := range []string{"", "stats: , msgs/sec", "stats: 0 msgs/sec"} {
		if got, err := rate([]byte(said), natsRate); err == nil {
			t.Errorf("the rate of %q is %v", said, got)
		}
	}
}

// program writes a program that prints its arguments and a rate: 2000 as a subscriber, else 3000.
func program(t *testing.T) (name, log string) {
	t.Helper()
	folder := t.TempDir()
	name, log = filepath.Join(folder, "nats"), filepath.Join(folder, "log")
	script := "#!/bin/sh\necho \"$@\" >>" + log + "\ncase \"$2\" in sub) n=2,000;; *) n=3,000;; esac\n" +
		"case \"$*\" in *broken*) echo out of sorts; exit 3;; esac\necho \"publisher stats: $n msgs/sec\"\n"
	if err := os.WriteFile(name, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return name, log
}

func TestClientsOfNATS(t *testing.T) {
	name, log := program(t)
	s := Server{at: &url.URL{Scheme: "nats", Host: "there"}, nats: name}
	for _, c := range []struct {
		client    string
		perSecond float64
		calls     string
	}{
		{Sync, 3000, "bench js pub sync own --clients 64 --create --storage memory --multisubject --multisubjectmax 100"},
		{Async, 3000, "bench js pub async own --batch 64 --create --storage memory --multisubject --multisubjectmax 100"},
		{SameStream, 2000, "bench js pub async upload --batch 64 --stream SHOAL --multisubject --multisubjectmax 100"},
		{Core, 2000, "bench pub core --multisubject --multisubjectmax 100"},
	} {
		r, err := s.Run(t.Context(), c.client, results.Params{Bytes: 256, Channels: 100, Publishers: 64}, 0)
		if err != nil || r.PerSecond != c.perSecond || r.Messages != 64 || r.CPU < 0 {
			t.Errorf("%s: %+v, %v", c.client, r, err)
		}
		calls, _ := os.ReadFile(log)
		if want := c.calls + " --server nats://there --no-progress --msgs 64 --size 256B\n"; !strings.Contains(string(calls), want) {
			t.Errorf("%s: it was called with\n%s, want\n%s", c.client, calls, want)
		}
	}
	s.at.Host = "broken"
	if _, err := s.Run(t.Context(), Sync, results.Params{}, 0); err == nil || !strings.Contains(err.Error(), "out of sorts") {
		t.Errorf("the error is %v", err)
	}
	if _, err := s.Run(t.Context(), "nobody", results.Params{}, 0); err == nil {
		t.Error("nobody has run")
	}
}

// told is a server that answers each line with the next of its answers.
func told(t *testing.T, say ...string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
			_, _ = conn.Write([]byte(strings.Join(say, "\r\n") + "\r\n"))
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-served })
	return ln.Addr().String()
}

func TestScriptIsOverheard(t *testing.T) {
	sha := strings.Repeat("0a", 20)
	addr := told(t, "+OK", `1.2 [0 127.0.0.1:1] "INFO"`, `1.2 [0 lua] "EVALSHA" "`+sha+`" "1" "shoal.kept:upload:u0" "{}"`)
	stored := false
	script, key, err := findScript(t.Context(), addr, func() error { stored = true; return nil })
	if err != nil || !stored || script != sha || key != "shoal.kept:upload:u" {
		t.Errorf("the script is %q for %q, %v", script, key, err)
	}
	if _, _, err := findScript(t.Context(), told(t, "+OK"), func() error { return nil }); err == nil {
		t.Error("a script was overheard of which nobody spoke")
	}
}

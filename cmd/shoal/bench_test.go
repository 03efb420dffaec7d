package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/internal/testlog"
)

// wantFigures reads the result that a benchmark has printed.
func wantFigures(t *testing.T, out string) benchResult {
	t.Helper()
	var r benchResult
	decoder := json.NewDecoder(strings.NewReader(out))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		t.Fatalf("%v in the output:\n%s", err, out)
	}
	return r
}

// serveBriefly starts a server with a short drain: clients may still be about to leave.
func serveBriefly(t *testing.T, args ...string) *served {
	t.Helper()
	return serveDev(t, append(args, "--drain=100ms")...)
}

func TestBenchFindsEveryMessage(t *testing.T) {
	s := serveBriefly(t, "--authorize=claims")
	for name, c := range map[string]struct {
		args     []string
		expected int64
	}{
		"fan-out":  {[]string{"--uploads=1"}, 40 * 50},
		"unicast":  {[]string{"--uploads=50", "--publishers=4"}, 40},
		"stalled":  {[]string{"--uploads=5", "--stalled=0.1", "--burst=4", "--pollers=2"}, 40 * 9},
		"payloads": {[]string{"--uploads=2", "--payload=8KiB", "--ramp=10000"}, 40 * 25},
	} {
		t.Run(name, func(t *testing.T) {
			r := shoal(t, nil, "", append([]string{"bench", "--dev", "--url=" + s.url + "/", "--connections=50",
				"--messages=40", "--rate=100000", "--json"}, c.args...)...)
			if r.status != statusDone || !strings.HasPrefix(r.err, "connected 50 of 50\npublished 40 of 40, delivered ") {
				t.Fatalf("status %d, errors:\n%s", r.status, r.err)
			}
			f := wantFigures(t, r.out)
			m, l := f.Messages, f.Messages.Latency
			if m.Published != 40 || m.Expected != c.expected || m.Delivered != c.expected || m.Lost != 0 || f.Connections.Ready != 50 {
				t.Errorf("the result is %+v, want %d messages", f, c.expected)
			}
			if l.P50 <= 0 || l.P50 > l.P90 || l.P90 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max || m.PerSecond <= 0 {
				t.Errorf("messages are %+v", m)
			}
			if n := f.Server.After["published"] - f.Server.Before["published"]; n != 40 {
				t.Errorf("the server counts %d messages", n)
			}
		})
	}
}

func TestBenchPrintsATableAndAReport(t *testing.T) {
	s := serveBriefly(t)
	folder := t.TempDir()
	for _, name := range []string{"plot.svg", "page.html"} {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, bytes.Repeat([]byte("old"), 100_000), 0o600); err != nil {
			t.Fatal(err)
		}
		r := shoal(t, nil, "", "bench", "--dev", "--url="+s.url, "--connections=5", "--messages=4", "--rate=1000", "--report="+path)
		if r.status != statusDone || !strings.Contains(r.out, "\ndelivered    20 of 20, 0 lost\n") {
			t.Errorf("status %d, printed:\n%s%s", r.status, r.out, r.err)
		}
		report, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(report, []byte("<polyline")) || bytes.Contains(report, []byte("old")) {
			t.Errorf("%s is\n%.300s", name, report)
		}
		if filepath.Ext(name) == ".svg" {
			wantXML(t, string(report))
		} else if !bytes.Contains(report, []byte("<td>20 of 20, 0 lost</td>")) {
			t.Errorf("%s is\n%s", name, report)
		}
	}
}

func wantXML(t *testing.T, text string) {
	t.Helper()
	for decoder := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
}

func TestBenchRefusesUsage(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"no secrets": {nil, []string{"--api-key is missing, want one", "--jwt-secret is missing, want the server's"}},
		"short secret": {[]string{"--api-key=k", "--jwt-secret=hunter2"},
			[]string{"--jwt-secret has 7 bytes, want at least 32"}},
		"connections": {[]string{"--dev", "--connections=0"}, []string{`--connections is "0", want a whole number from 1 to`}},
		"uploads": {[]string{"--dev", "--connections=2", "--uploads=3"},
			[]string{`--uploads is "3", want at most --connections, which is 2`}},
		"rate":     {[]string{"--dev", "--rate=0"}, []string{`--rate is "0", want a number from 0.01 to 1000000`}},
		"ramp":     {[]string{"--dev", "--ramp=0.0001"}, []string{`--ramp is "0.0001", want 0 or at least 0.001`}},
		"payload":  {[]string{"--dev", "--payload=1"}, []string{`--payload is "1", want a number of bytes`}},
		"stalled":  {[]string{"--dev", "--stalled=0.999"}, []string{`--stalled is "0.999", want less`}},
		"duration": {[]string{"--dev", "--duration=10"}, []string{`--duration is "10", want a duration`}},
		"report":   {[]string{"--dev", "--report=plot.png"}, []string{`--report is "plot.png", want a name that ends in`}},
		"no form":  {[]string{"--dev", "--report=plot"}, []string{`--report is "plot", want a name that ends in`}},
		"URL":      {[]string{"--dev", "--url=ws://h"}, []string{`--url is "ws://h", want the server's address`}},
		"argument": {[]string{"--dev", "now"}, []string{"unexpected argument now"}},
	} {
		t.Run(name, func(t *testing.T) {
			shoal(t, nil, "", append([]string{"bench"}, c.args...)...).wantErrors(t, statusUsage, c.want...)
		})
	}
}

func TestBenchFails(t *testing.T) {
	s := serveBriefly(t, "--max-connections=3")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nobody there": {[]string{"--url=http://127.0.0.1:1"}, "nothing answers at http://127.0.0.1:1; start the server"},
		"wrong key":    {[]string{"--api-key=hidden"}, "the API key is not one of those configured; check --api-key"},
		"wrong secret": {[]string{"--jwt-secret=hidden"}, "the server refused: Invalid signature; check --jwt-secret"},
		"report":       {[]string{"--report=/missing/plot.svg"}, "cannot write the report: open /missing/plot.svg: "},
		// How many are ready when one fails, and how many fail, depends on the order of events.
		"too many":   {[]string{"--connections=5"}, ": the server answered the upgrade with HTTP/1.1 503 Service Unavailable"},
		"open files": {[]string{"--connections=1000000"}, "raise the open files limit: ulimit -n 1000064"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"bench", "--dev", "--url=" + s.url, "--connections=1", "--ramp=20"}, c.args...)
			r := shoal(t, nil, "", args...)
			r.err = r.err[strings.LastIndex(strings.TrimSuffix(r.err, "\n"), "\n")+1:] // after the display
			r.wantErrors(t, statusFailed, c.want)
			if strings.Contains(r.err, "hidden") {
				t.Errorf("a secret is printed:\n%s", r.err)
			}
		})
	}
}

// A run that fails leaves a report as it was, and no empty file where there was none.
func TestBench_FailedRunLeavesTheReportAlone(t *testing.T) {
	folder := t.TempDir()
	older := filepath.Join(folder, "older.svg")
	if err := os.WriteFile(older, []byte("older"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{older, filepath.Join(folder, "new.svg")} {
		shoal(t, nil, "", "bench", "--dev", "--url=http://127.0.0.1:1", "--report="+path).wantErrors(t, statusFailed, "nothing answers")
	}
	files, err := os.ReadDir(folder)
	if text, _ := os.ReadFile(older); err != nil || len(files) != 1 || string(text) != "older" {
		t.Errorf("%v, %v, with %q", files, err, text)
	}
}

// pretended is a server that accepts clients and messages. Once a message is published it calls then, and the
// client is gone. accepted is its answer.
func pretended(t *testing.T, status int, answer string, then func()) string {
	t.Helper()
	published := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/stats", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"sent":1,"name":"x"}`) })
	mux.HandleFunc("POST /v1/uploads/{id}/messages", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
		then()
		close(published)
	})
	mux.HandleFunc("GET /ws/uploads", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"shoal.v1"}})
		if err != nil {
			return
		}
		defer c.CloseNow() //nolint:errcheck // of no interest
		if c.Write(t.Context(), websocket.MessageText, []byte(`{"action":"subscribed"}`)) == nil {
			<-published
			_ = c.Close(websocket.StatusTryAgainLater, "slow consumer")
		}
	})
	return foreign(t, mux.ServeHTTP)
}

func TestBenchReportsLoss(t *testing.T) {
	url := pretended(t, http.StatusAccepted, `{"accepted":1,"epoch":"e","offset":1}`, func() {})
	r := shoal(t, nil, "", "bench", "--dev", "--url="+url, "--connections=1", "--messages=1", "--json")
	for _, want := range []string{
		"shoal: 1 of 1 messages did not arrive\n",
		"shoal: 1 of 1 connections have ended, the first: client 0: the server closed the connection with 1013, slow consumer\n",
	} {
		if !strings.Contains(r.err, want) || r.status != statusFailed {
			t.Errorf("status %d, errors:\n%s\nwant\n%s", r.status, r.err, want)
		}
	}
	if f := wantFigures(t, r.out); f.Messages.Lost != 1 || f.Connections.Ended != 1 || f.Server.After["sent"] != 1 {
		t.Errorf("the result is %+v", f)
	}
}

func TestBenchReportsRefusedMessages(t *testing.T) {
	url := pretended(t, http.StatusBadRequest, `{"detail":"the message is dull"}`, func() {})
	r := shoal(t, nil, "", "bench", "--dev", "--url="+url, "--connections=1", "--messages=1")
	if r.status != statusFailed || !strings.Contains(r.err, "shoal: the server refused: the message is dull\n") ||
		!strings.Contains(r.out, "published    0 of 1\n") || strings.Contains(r.out, "the rate is more") {
		t.Errorf("status %d, printed:\n%s%s", r.status, r.out, r.err)
	}
}

// interrupted runs a benchmark until cancel is called.
func interrupted(ctx context.Context, t *testing.T, args ...string) (result, benchResult) {
	t.Helper()
	var out, errs bytes.Buffer
	status := run(ctx, append([]string{"bench", "--dev", "--json"}, args...), nil, strings.NewReader(""), &out, &errs)
	f := wantFigures(t, out.String())
	if !f.Interrupted {
		t.Error("the result does not say so")
	}
	return result{status, out.String(), errs.String()}, f
}

func TestBenchInterruptedWhilePublishing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := pretended(t, http.StatusAccepted, `{"accepted":1,"epoch":"e","offset":1}`, cancel)
	r, f := interrupted(ctx, t, "--url="+url, "--connections=1", "--rate=0.01", "--duration=24h")
	if f.Messages.Published != 1 || f.Messages.Planned != 864 || f.Messages.Lost != 1 || r.status != statusFailed {
		t.Errorf("status %d, the result is %+v", r.status, f)
	}
}

// ender ends a run as soon as it shows that all are connected.
type ender struct {
	testlog.Buffer
	end func()
}

func (e *ender) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("connected")) {
		e.end()
	}
	return e.Buffer.Write(p)
}

func TestBenchInterruptedInOrder(t *testing.T) {
	s := serveBriefly(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	status := run(ctx, []string{"bench", "--dev", "--url=" + s.url, "--connections=20", "--rate=1000", "--duration=24h"}, nil,
		strings.NewReader(""), &out, &ender{end: cancel})
	if status != statusDone || !strings.Contains(out.String(), " 0 lost\n") ||
		!strings.Contains(out.String(), "note: the run was interrupted") {
		t.Errorf("status %d, printed:\n%s", status, out.String())
	}
}

func TestBenchInterruptedWhileConnecting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := foreign(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/stats" {
			fmt.Fprint(w, "{}")
			return
		}
		cancel()
		<-r.Context().Done()
	})
	r, f := interrupted(ctx, t, "--url="+url, "--connections=2")
	if r.status != statusFailed || !strings.HasSuffix(r.err, "shoal: interrupted before all clients were ready\n") ||
		f.Connections.Ready != 0 {
		t.Errorf("status %d, errors:\n%s", r.status, r.err)
	}
}

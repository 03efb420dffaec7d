package main

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
)

// The environment variables that make this program the program under test, and name the system that it breaks.
const (
	asProgram = "COMPARE_TEST_PROGRAM"
	breaks    = "COMPARE_TEST_BREAKS"
)

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		if broken := os.Getenv(breaks); broken != "" && slices.Contains(os.Args, "server") && slices.Contains(os.Args, broken) {
			_, _ = os.Stderr.WriteString("broken on purpose\n")
			os.Exit(3)
		}
		os.Exit(execute(context.Background(), os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
	}
	goleak.VerifyTestMain(m)
}

// run runs the command line, with children that are this program.
func run(t *testing.T, arguments ...string) (code int, out, progress string) {
	t.Helper()
	t.Setenv(asProgram, "1")
	t.Setenv("GORACE", "atexit_sleep_ms=0") // or each child, built with the race detector, sleeps when it ends
	var outBuffer, errBuffer bytes.Buffer
	code = execute(t.Context(), arguments, streams{strings.NewReader(""), &outBuffer, &errBuffer})
	return code, outBuffer.String(), errBuffer.String()
}

// tiny makes a run as small as it can be.
func tiny(folder string, more ...string) []string {
	return append([]string{
		"run", "--out", folder, "--repeat", "1", "--connections", "20", "--idle", "20,40", "--burst", "5",
		"--unicast-rounds", "2", "--measure", "1ms", "--duration", "20ms", "--settle", "1ms",
		"--rate", "10000", "--publishers", "2", "--uploads", "4",
	}, more...)
}

func TestEverything(t *testing.T) {
	folder := t.TempDir()
	code, out, progress := run(t, tiny(folder, "--system", "shoal,write-loop,joined-write,gws-upgrade,gws-direct,centrifuge,melody,net-http")...)
	if code != 0 {
		t.Fatalf("it failed:\n%s", progress)
	}
	for _, want := range []string{
		"delivered messages/s, of joined write", "S2 single: 20 connections", "S4 latency: 20 connections, 0.5 of the write loop's capacity, 5 % stalled",
		"S5 memory: 40 connections", "| gws-upgrade |", "## Where this comes from", "github.com/olahol/melody v1.1.4",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in the tables:\n%s", want, out)
		}
	}
	// Centrifugo, against which S12 has four targets, is not a part of this program.
	if strings.Contains(out, "## Failed") || strings.Count(out, "not measured") != 4 {
		t.Errorf("something was not measured:\n%s", out)
	}
	records, err := results.Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	check(t, records)

	code, again, drawn := run(t, "report", "--out", folder)
	if code != 0 || again != out {
		t.Errorf("the report of what was measured differs, code %d:\n%s", code, again)
	}
	charts, _ := filepath.Glob(filepath.Join(folder, "*.svg"))
	if len(charts) != 1 || strings.Count(drawn, "drew ") != len(charts) {
		t.Errorf("the charts are %v", charts)
	}
}

// check looks at each record by itself.
func check(t *testing.T, records []results.Record) {
	t.Helper()
	perScenario := map[string]int{}
	for _, r := range records {
		perScenario[r.Scenario]++
		if r.Error != "" || r.Run == "" || r.Provenance.Version == "" || r.Provenance.Commit == "" || r.Kind == "" {
			t.Errorf("a record is not as it should be: %+v", r)
		}
		if r.Scenario == "S12" && r.Metrics[results.Throughput] <= 0 || r.Metrics[results.Delivered] != r.Metrics[results.Expected] {
			t.Errorf("something was lost: %+v", r)
		}
		for metric, value := range r.Metrics {
			if value < 0 {
				t.Errorf("%s is %v: %+v", metric, value, r)
			}
		}
	}
	for scenario, want := range map[string]int{"S1": 5, "S2": 5, "S3": 5, "S4": 10, "S5": 10, "S6": 4, "S11": 4, "S12": 11} {
		if perScenario[scenario] != want {
			t.Errorf("%s has %d records, want %d", scenario, perScenario[scenario], want)
		}
	}
}

// tinySweep makes sweeps as small as they can be.
func tinySweep(folder string, names ...string) []string {
	return append(append([]string{"sweep"}, names...), "--out", folder, "--receivers", "10,2000", "--logical", "10,100",
		"--procs", "1,2", "--sockets", "5,10", "--bursts", "1,3", "--stalled", "0,0.5", "--servers", "1,3",
		"--population", "100", "--connections", "20", "--repeat", "1", "--measure", "1ms", "--duration", "20ms")
}

func TestEverySweep(t *testing.T) {
	folder := t.TempDir()
	code, out, progress := run(t, tinySweep(folder)...)
	if code != 0 || strings.Contains(out, "## Failed") {
		t.Fatalf("it failed:\n%s\n%s", out, progress)
	}
	for _, want := range []string{
		"| shoal, broadcast, shuffled, GOMAXPROCS 2 | 2,000 |", "| shoal, one upload each | 100 |", "| shoal, subscribe | 2 |",
		"| write-loop | 10 |", "| joined-write | 3 |", "| shoal | 50 % |", "| shoal, 40 at a time | 3 |",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in the tables:\n%s", want, out)
		}
	}
	records, err := results.Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	perSweep := map[string]int{}
	for _, r := range records {
		perSweep[r.Scenario]++
		if len(r.Metrics) == 0 || r.Metrics[results.Delivered] != r.Metrics[results.Expected] {
			t.Errorf("a record is not as it should be: %+v", r)
		}
		// The servers share the clients: each message reaches as many as with one.
		if all := r.Metrics[results.Rounds] * float64(r.Params.Connections*r.Params.Messages); r.Params.Servers > 0 && r.Metrics[results.Delivered] != all {
			t.Errorf("%v messages were delivered, want %v: %+v", r.Metrics[results.Delivered], all, r.Params)
		}
	}
	// S2 is how fast the write loop is, by which the rates of the stalled clients go.
	want := map[string]int{"receivers": 6, "memory": 4, "cores": 8, "sockets": 4, "burst": 4, "stalled": 2, "servers": 4, "S2": 3}
	if !maps.Equal(perSweep, want) {
		t.Errorf("the records are %v, want %v", perSweep, want)
	}
	code, again, drawn := run(t, "report", "--out", folder)
	if code != 0 || again != out || strings.Count(drawn, "drew ") != 3 {
		t.Errorf("code %d, the report of what was measured differs, or its charts:\n%s\n%s", code, again, drawn)
	}
}

// Redis and the yardsticks need programs that not every machine has.
func TestNodes(t *testing.T) {
	folder := t.TempDir()
	code, out, progress := run(t, "nodes", "memory", "nats", "nats-embedded", "--no-yardsticks", "--out", folder, "--repeat", "1",
		"--publishers", "1,20", "--uploads", "3", "--measure", "20ms", "--duration", "20ms", "--rates", "1000",
		"--profiles", filepath.Join(folder, "profiles"))
	if code != 0 || strings.Contains(out, "## Failed") {
		t.Fatalf("it failed:\n%s\n%s", out, progress)
	}
	for _, want := range []string{
		"## S9 nodes: through nats-embedded, 3 uploads, 20 in flight", "## S9 latency: through memory, 1,000 messages a second",
		"## S9 latency: through nats, 0.5 of its capacity",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in the tables:\n%s", want, out)
		}
	}
	records, err := results.Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		m := r.Metrics
		_, apart := m[results.ReceiverCPU]
		_, served := m[results.BrokerCPU]
		if m[results.Delivered] == 0 || m[results.Delivered] != m[results.Expected] || m[results.Throughput] <= 0 ||
			m[results.P999] < m[results.P50] || apart != (r.Params.Work != "memory") || served != (r.Params.Work == "nats") {
			t.Errorf("a record is not as it should be: %+v", r)
		}
	}
	if len(records) != 12 {
		t.Errorf("there are %d records, want 12", len(records))
	}
	if files, _ := filepath.Glob(filepath.Join(folder, "profiles", "S9-*.pprof")); len(files) != 20 {
		t.Errorf("the profiles are %v", files)
	}
}

func TestOneFailureStopsNobodyElse(t *testing.T) {
	t.Setenv(breaks, "gws")
	folder := t.TempDir()
	code, out, progress := run(t, tiny(folder, "--repeat", "3", "--scenario", "S1", "--system", "gws,write-loop")...)
	if code != 0 || !strings.Contains(out, "## Failed") || !strings.Contains(out, "broken on purpose") {
		t.Errorf("code %d, the tables are\n%s", code, out)
	}
	if strings.Count(progress, "FAILED") != 2 || strings.Count(progress, "left out") != 1 {
		t.Errorf("the progress is\n%s", progress)
	}
	records, err := results.Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	fine := slices.DeleteFunc(records, func(r results.Record) bool { return r.System != "write-loop" || r.Error != "" })
	if len(fine) != 3 {
		t.Errorf("of the write loop there are %+v", fine)
	}
}

// S4 alone first measures the throughput that its rates are derived from.
func TestLatencyAlone(t *testing.T) {
	folder := t.TempDir()
	profiles := filepath.Join(folder, "profiles")
	code, out, progress := run(t, tiny(folder, "--scenario", "S4", "--system", "shoal", "--profiles", profiles)...)
	if code != 0 || !strings.Contains(out, "S2 single") || !strings.Contains(out, "S4 latency") {
		t.Errorf("code %d, the tables are\n%s\nthe progress\n%s", code, out, progress)
	}
	if files, _ := filepath.Glob(filepath.Join(profiles, "S4-shoal-*.pprof")); len(files) != 2 {
		t.Errorf("the profiles are %v", files)
	}
}

func TestOverTLS(t *testing.T) {
	folder := t.TempDir()
	code, out, progress := run(t, tiny(folder, "--tls", "--scenario", "S1,S6", "--system", "shoal,write-loop,gws-upgrade")...)
	if code != 0 || !strings.Contains(out, "at once, over TLS 1.3") || strings.Contains(out, "## Failed") {
		t.Errorf("code %d, the tables are\n%s\nthe progress\n%s", code, out, progress)
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		code      int
		want      string
		arguments []string
	}{
		{0, "centrifuge-batched", []string{"systems"}},
		{0, "Scenarios to measure", []string{"run", "--help"}},
		{0, "receivers, memory, cores", []string{"sweep", "--help"}},
		{1, "--centrifugo", []string{"--scenario", "S1", "--centrifugo", "/nowhere", "--out", "."}},
		{2, "--repeat is 0, want 1 to 1000000", []string{"--scenario", "S1", "--repeat", "0", "--out", "."}},
		{2, `but got "flight"`, []string{"sweep", "flight", "--out", "."}},
		{2, `but got "pigeons"`, []string{"nodes", "pigeons", "--out", "."}},
		{2, "--publishers is 0", []string{"nodes", "--publishers", "64,0", "--out", "."}},
		{2, "--rates is NaN", []string{"nodes", "--rates", "NaN", "--out", "."}},
		{2, "--connections is 900000000", []string{"--connections", "900000000", "--out", "."}},
		{2, "--stalled is 1,", []string{"--stalled", "0,1", "--out", "."}},
		{2, "--patience is 0s, want 1ms to 24h", []string{"--patience", "0s", "--out", "."}},
		{2, "--bytes is 10", []string{"recovery", "--bytes", "10"}},
		{2, "unexpected argument", []string{"fly"}},
		{2, `but got "S9"`, []string{"run", "--scenario", "S9", "--out", "."}},
		{2, `but got "nobody"`, []string{"run", "--system", "nobody", "--out", "."}},
		{1, "there are none", []string{"report", "--out", "nowhere"}},
	} {
		code, out, complaint := run(t, c.arguments...)
		if code != c.code || !strings.Contains(out+complaint, c.want) {
			t.Errorf("compare %s: code %d, %s%s", strings.Join(c.arguments, " "), code, out, complaint)
		}
	}
}

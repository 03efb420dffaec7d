package report

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/internal/plot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture are results in which the targets are met and missed in known ways. Repetition 2 runs at half speed:
// ratios by repetition do not notice.
func fixture() []results.Record {
	var records []results.Record
	add := func(scenario, system string, p results.Params, metric results.Metric, value float64) {
		e, err := systems.Find(system)
		if err != nil {
			panic(err)
		}
		for repeat, speed := range map[int]float64{1: 1, 2: 0.5, 3: 1} {
			records = append(records, results.Record{
				Schema: results.Schema, Run: "20260102T030405Z-abc", Time: time.Date(2026, 1, 2, 3, 4, 5+repeat, 0, time.UTC),
				Scenario: scenario, System: system, Kind: string(e.Kind), Repeat: repeat, Params: p,
				Metrics: map[results.Metric]float64{metric: value * speed, results.GeneratorShare: 0.4},
				Provenance: results.Provenance{
					Commit: "0123456789abcdef", CPU: "A Processor", Cores: 2, GOMAXPROCS: 2, Go: "go1.26", OS: "linux/amd64",
					Kernel: "6.1", Command: []string{"compare", "run"}, Module: e.Module, Version: "v1",
				},
			})
		}
	}
	s1 := results.Params{Connections: 5000, Channels: 1, Messages: 40, Bytes: 256}
	for system, value := range map[string]float64{"shoal": 3e6, "joined-write": 4e6, "gws": 180e3, "melody": 200e3} {
		add("S1", system, s1, results.Throughput, value)
	}
	s4 := results.Params{Connections: 5000, Channels: 1, Bytes: 256, Load: 0.5, Rate: 9}
	s4b := s4
	s4b.Stalled = 0.05
	add("S4", "shoal", s4, results.P99, 30)
	add("S4", "write-loop", s4, results.P99, 20)
	add("S4", "shoal", s4b, results.P99, 33)
	for _, n := range []int{5000, 15000} {
		add("S5", "shoal", results.Params{Connections: n, Channels: n}, results.PerConnection, 6500)
		add("S5", "centrifuge", results.Params{Connections: n, Channels: n}, results.PerConnection, 26000)
	}
	// The order of a map is another one each time, so the record is looked for.
	broken := records[slices.IndexFunc(records, func(r results.Record) bool { return r.System == "shoal" })]
	broken.Repeat, broken.Error, broken.Metrics = 4, "it broke\nin two", map[results.Metric]float64{results.Throughput: 1}
	return append(records, broken)
}

func selected(t *testing.T) Data {
	t.Helper()
	d, err := Select(fixture(), "")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestVerdicts(t *testing.T) {
	want := []string{
		"S1 delivered messages/s, of the best peer that holds nothing back (melody): 15.0 (15.0–15.0) false",
		"S1 delivered messages/s, of joined write: 0.75 (0.75–0.75) false",
		"S4 p99 at half of S2's capacity, of the write loop: 1.50 (1.50–1.50) false",
		"S4 p99 with stalled clients, of that without (5 % stalled, 0.5 of the capacity): 1.10 (1.10–1.10) true",
		"S5 bytes per connection, 5,000 connections: 6,500 (3,250–6,500) false",
		"S5 bytes per connection, 15,000 connections: 6,500 (3,250–6,500) false",
		"S5 bytes per connection, of centrifuge, 5,000 connections: 0.25 (0.25–0.25) false",
		"S5 bytes per connection, of centrifuge, 15,000 connections: 0.25 (0.25–0.25) false",
	}
	var got []string
	for _, v := range selected(t).verdicts() {
		got = append(got, fmt.Sprintf("%s %s: %s %v", v.scenario, v.describe(), v.measured.Text(plot.Short), v.met()))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMarkdown(t *testing.T) {
	var out bytes.Buffer
	if err := selected(t).Markdown(&out); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "report.md"))
	if err != nil || !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%v; the tables are\n%s", err, &out)
	}
}

// Fill writes the tables of a scenario between its marks, and keeps everything else.
func TestFill(t *testing.T) {
	d := selected(t)
	got, err := d.Fill("before\n<!-- compare S5 -->\nold\n<!-- /compare --> between\n<!-- compare S5 tls -->\nkept\n<!-- /compare -->\nafter\n")
	for _, want := range []string{
		"before\n<!-- compare S5 -->\n\n### S5 memory: 5,000", "| shoal | 6,500 (3,250–6,500) |", "<!-- /compare --> between\n",
		"<!-- compare S5 tls -->\nkept\n<!-- /compare -->\nafter\n",
	} {
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s, %v", want, got, err)
		}
	}
	if strings.Contains(got, "old") || strings.Contains(got, "S1") {
		t.Errorf("too much is in\n%s", got)
	}
	again, err := d.Fill(got)
	if err != nil || again != got {
		t.Errorf("filled again it is\n%s, %v", again, err)
	}
	for _, document := range []string{"<!-- compare S5 -->\n", "<!-- compare S77 -->\n<!-- /compare -->"} {
		if _, err := d.Fill(document); err == nil {
			t.Errorf("%q is filled", document)
		}
	}
}

func TestCharts(t *testing.T) {
	folder := t.TempDir()
	names, err := selected(t).Charts(folder)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, name := range names {
		files = append(files, filepath.Base(name))
		image, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"</svg>", ">shoal<", "this project", "2026-01-02 · 012345678 · A Processor", "is better"} {
			if !strings.Contains(string(image), want) {
				t.Errorf("%s has no %q", name, want)
			}
		}
	}
	if got := strings.Join(files, " "); got != "s1-throughput.svg" {
		t.Errorf("the charts are %s, want s1-throughput.svg", got)
	}
	if image, _ := os.ReadFile(names[0]); !strings.Contains(string(image), "(logarithmic)") {
		t.Error("values that lie far apart are not on a logarithmic axis")
	}
}

// Of each part the newest run is selected that measured more than a yardstick.
func TestSelect(t *testing.T) {
	at := func(run, scenario, kind, work string, day int) results.Record {
		return results.Record{
			Run: run, Scenario: scenario, Kind: kind, Params: results.Params{Work: work}, Time: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC),
		}
	}
	all := []results.Record{
		at("1", "S2", "own", "", 1), at("1", "S12", "own", "single", 1), at("1", "S12", "own", "batch", 1), at("2", "S2", "own", "", 2),
		at("2", "S12", "own", "batch", 2), at("3", "S2", "yardstick", "", 3),
	}
	for run, want := range map[string]string{"": "S2 2, S12 batch 2, S12 single 1, ", "1": "S2 1, S12 batch 1, S12 single 1, ", "3": "S2 3, "} {
		d, err := Select(all, run)
		got := ""
		for _, r := range d.records {
			got += strings.Join(strings.Fields(r.Scenario+" "+r.Params.Work+" "+r.Run), " ") + ", "
		}
		if err != nil || got != want {
			t.Errorf("of the run %q %s is selected, %v, want %s", run, got, err, want)
		}
	}
	if _, err := Select(all, "never"); err == nil {
		t.Error("a run that never was has results")
	}
}

// The tables and charts of a sweep have each value, ratios are made repetition by repetition, a single point draws no curve,
// and a failed measurement is not drawn.
func TestSweeps(t *testing.T) {
	var records []results.Record
	add := func(sweep, failure string, p results.Params, metric results.Metric, value float64) {
		for repeat, speed := range []float64{1, 0.5, 1} {
			records = append(records, results.Record{
				Run: "run", Scenario: sweep, System: "shoal", Kind: "own", Repeat: repeat + 1, Params: p, Error: failure,
				Metrics:    map[results.Metric]float64{metric: value * speed},
				Provenance: results.Provenance{Commit: "0123456789abcdef", CPU: "A Processor", Cores: 2, L2: 512 << 10, L3: 32 << 20},
			})
		}
	}
	for _, n := range []int{10, 100_000, 1000} {
		add(runner.Receivers, "", results.Params{Connections: n, Procs: 1, Work: results.Broadcast}, results.PerReceiver, float64(n)/10)
	}
	add(runner.Receivers, "", results.Params{Connections: 10, Procs: 2, Work: results.Broadcast}, results.PerReceiver, 7)
	add(runner.Receivers, "it broke", results.Params{Connections: 5, Procs: 1, Work: results.Broadcast}, results.PerReceiver, 7)
	add(runner.Cores, "", results.Params{Procs: 1, Work: results.Publish}, results.Operations, 100)
	add(runner.Cores, "", results.Params{Procs: 2, Work: results.Publish}, results.Operations, 180)
	d, err := Select(records, "")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := d.Markdown(&out); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	names, err := d.Charts(folder)
	if err != nil || len(names) != 2 || filepath.Base(names[0]) != "receivers-cost.svg" {
		t.Fatalf("the charts are %v, %v", names, err)
	}
	for _, name := range names {
		image, _ := os.ReadFile(name)
		out.Write(image)
	}
	for _, want := range []string{
		"## Sweep receivers: one message to many, without sockets\n\n|  | receivers | ns/receiver |\n| --- | --- | --- |\n",
		"| shoal, broadcast, GOMAXPROCS 1 | 5 | – |", "| shoal, broadcast, GOMAXPROCS 1 | 1,000 | 100 (50.0–100) |",
		"| shoal, publish | 2 | 180 (90–180) | – | – |", "- receivers, shoal, repetition ",
		">1 core  10 k<", ">L2 is full<", ">receivers (logarithmic)<", ">100,000<", ">publish  1.8<", ">times as much as on the first<",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
	for _, no := range []string{">2 cores", "L3 is full"} {
		if strings.Contains(out.String(), no) {
			t.Errorf("%q is drawn", no)
		}
	}
	var shown []string
	for _, s := range sweeps {
		shown = append(shown, s.name)
	}
	if !slices.Equal(shown, runner.AllSweeps()) {
		t.Errorf("the sweeps %v are shown, %v are measured", shown, runner.AllSweeps())
	}
}

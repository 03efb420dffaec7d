package report

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
)

// sweptFixture are the results of two sweeps. Repetition 2 runs at half speed.
func sweptFixture() []results.Record {
	var records []results.Record
	add := func(sweep string, p results.Params, metric results.Metric, value float64) {
		for repeat, speed := range map[int]float64{1: 1, 2: 0.5, 3: 1} {
			records = append(records, results.Record{
				Run: "run", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Scenario: sweep, System: "shoal", Kind: "own",
				Repeat: repeat, Params: p, Metrics: map[results.Metric]float64{metric: value * speed},
				Provenance: results.Provenance{Commit: "0123456789abcdef", CPU: "A Processor", Cores: 2, L2: 512 << 10, L3: 32 << 20},
			})
		}
	}
	for _, n := range []int{10, 100_000, 1000} {
		add(runner.Receivers, results.Params{Connections: n, Procs: 1, Work: results.Broadcast}, results.PerReceiver, float64(n)/10)
	}
	add(runner.Receivers, results.Params{Connections: 10, Procs: 2, Work: results.Broadcast}, results.PerReceiver, 7)
	for procs, value := range map[int]float64{1: 100, 2: 180} {
		add(runner.Cores, results.Params{Procs: procs, Work: results.Publish}, results.Operations, value)
	}
	failed := records[0]
	failed.Params.Connections, failed.Error = 5, "it broke"
	return append(records, failed)
}

func sweptData(t *testing.T) Data {
	t.Helper()
	d, err := Select(sweptFixture(), "")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTablesOfSweeps(t *testing.T) {
	var out bytes.Buffer
	if err := sweptData(t).Markdown(&out); err != nil {
		t.Fatal(err)
	}
	want := `
## Sweep receivers: one message to many, without sockets

| | receivers | ns/receiver |
| --- | --- | --- |
| shoal, broadcast, GOMAXPROCS 1 | 5 | – |
| shoal, broadcast, GOMAXPROCS 1 | 10 | 1.00 (0.50–1.00) |
| shoal, broadcast, GOMAXPROCS 1 | 1,000 | 100 (50.0–100) |
| shoal, broadcast, GOMAXPROCS 1 | 100,000 | 10,000 (5,000–10,000) |
| shoal, broadcast, GOMAXPROCS 2 | 10 | 7.00 (3.50–7.00) |

## Sweep cores: more cores

| | GOMAXPROCS | operations/s | delivered messages/s | messages/write |
| --- | --- | --- | --- | --- |
| shoal, publish | 1 | 100 (50–100) | – | – |
| shoal, publish | 2 | 180 (90–180) | – | – |

## Failed

- receivers, shoal, repetition `
	if !strings.HasPrefix(out.String(), want) {
		t.Errorf("the tables are\n%s", &out)
	}
}

func TestChartsOfSweeps(t *testing.T) {
	folder := t.TempDir()
	names, err := sweptData(t).Charts(folder)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(folder, "receivers-cost.svg"), filepath.Join(folder, "cores-throughput.svg")}
	if !slices.Equal(names, want) {
		t.Fatalf("the charts are %v, want %v", names, want)
	}
	for i, texts := range [][]string{
		{">1 core  10 k<", ">L2 is full<", ">receivers (logarithmic)<", "2026-01-02 · 012345678 · A Processor", ">100,000<"},
		{">publish  1.8<", ">times as much as on the first<", ">GOMAXPROCS<"},
	} {
		image, err := os.ReadFile(names[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			if !strings.Contains(string(image), text) {
				t.Errorf("%s has no %q", names[i], text)
			}
		}
		// A single point draws no line, and values beyond the axis are not marked.
		for _, text := range []string{">2 cores", "L3 is full"} {
			if strings.Contains(string(image), text) {
				t.Errorf("%s has %q", names[i], text)
			}
		}
	}
}

// Ratios are made repetition by repetition, so that one at half speed does not show.
func TestRelativeCurves(t *testing.T) {
	d := sweptData(t)
	cores := coresSweep()
	curves := d.curves(cores, cores.graphs[0])
	if len(curves) != 1 || len(curves[0].points) != 2 {
		t.Fatalf("the curves are %+v", curves)
	}
	for i, want := range []float64{1, 1.8} {
		if p := curves[0].points[i]; p.x != float64(i+1) || p.y != (spread{3, want, want, want}) {
			t.Errorf("point %d is %+v, want %v", i, p, want)
		}
	}
}

// A failed measurement is not drawn, and a single point draws no curve.
func TestCurvesHoldWhatWasMeasured(t *testing.T) {
	s := receiversSweep()
	curves := sweptData(t).curves(s, s.graphs[0])
	if len(curves) != 1 || curves[0].name != "1 core" || len(curves[0].points) != 3 {
		t.Errorf("the curves are %+v", curves)
	}
}

func TestEverySweepIsShown(t *testing.T) {
	var names []string
	for _, s := range sweeps() {
		names = append(names, s.name)
	}
	if !slices.Equal(names, runner.AllSweeps()) {
		t.Errorf("shown are %v, measured are %v", names, runner.AllSweeps())
	}
}

func TestTicksAlongAnAxis(t *testing.T) {
	for _, c := range []struct {
		logarithmic bool
		values      []float64
		want        string
	}{
		{true, []float64{10, 1000, 1024, 5000}, "10 1,000  5,000"}, // a label without room is left out
		{true, []float64{10, 20, 50, 100, 200, 500, 1000, 2000}, "10 100 1,000"},
		{false, []float64{1, 2, 4}, "1 2 4"},
	} {
		var labels []string
		for _, tick := range (axis{write: grouped, logarithmic: c.logarithmic}).scale(c.values).ticks {
			labels = append(labels, tick.Label)
		}
		if got := strings.Join(labels, " "); got != c.want {
			t.Errorf("the ticks for %v are %s, want %s", c.values, got, c.want)
		}
	}
}

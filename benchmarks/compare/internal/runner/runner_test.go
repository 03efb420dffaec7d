package runner

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
)

func config() Config {
	return Config{
		Repeat: 2, Connections: 100, Idle: []int{50, 150}, Bytes: 256, Burst: 40, UnicastRounds: 10,
		Measure: time.Second, Loads: []float64{0.5}, Stalled: []float64{0, 0.05}, Subscribers: []int{1, 10}, Rate: 1000,
		Publishers: 16, Batch: 40, Uploads: 1000, Kbits: []int{64, 160}, Delays: []time.Duration{time.Millisecond}, Losses: []float64{0.01},
		States: 150, StateBytes: 600, Duration: time.Second, Settle: time.Second, Patience: time.Minute,
	}
}

func planned(t *testing.T, c Config) []trial {
	t.Helper()
	trials, err := c.plan()
	if err != nil {
		t.Fatal(err)
	}
	return trials
}

// order writes a plan down, trial by trial.
func order(trials []trial) []string {
	var lines []string
	for _, t := range trials {
		lines = append(lines, strings.Join([]string{t.name(), t.entry.Name, strings.Repeat("#", t.repeat), variant(t.params)}, " "))
	}
	return lines
}

func TestPlanInterleaves(t *testing.T) {
	c := config()
	c.Systems = []string{"shoal", "gws-upgrade", "write-loop"}
	c.Scenarios = []string{"S6", "S4"}
	want := []string{
		"S4 shoal # 100 clients 0/s", "S4 shoal # 100 clients 0/s 5% stalled",
		"S4 write-loop # 100 clients 0/s", "S4 write-loop # 100 clients 0/s 5% stalled",
		"S4 write-loop ## 100 clients 0/s", "S4 write-loop ## 100 clients 0/s 5% stalled",
		"S4 shoal ## 100 clients 0/s", "S4 shoal ## 100 clients 0/s 5% stalled",
		"S6 shoal # 100 clients", "S6 gws-upgrade # 100 clients",
		"S6 gws-upgrade ## 100 clients", "S6 shoal ## 100 clients",
	}
	if got := order(planned(t, c)); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the plan is\n%s", strings.Join(got, "\n"))
	}
}

func TestPlanHoldsEverything(t *testing.T) {
	seen := map[string]int{}
	for _, tr := range planned(t, config()) {
		seen[tr.scenario]++
		if tr.scenario == Unicast && (tr.params.Channels != 100 || tr.params.Messages != 1000) {
			t.Errorf("S3 is run with %+v", tr.params)
		}
	}
	for scenario, want := range map[string]int{"S1": 18, "S2": 18, "S3": 18, "S4": 36, "S5": 36, "S6": 16, "S11": 20, "S12": 2 * (8 + 3)} {
		if seen[scenario] != want {
			t.Errorf("%s has %d trials, want %d", scenario, seen[scenario], want)
		}
	}
}

// A broker's yardsticks are measured right after it, with as much in flight; latency comes when capacities are known.
func TestPlanOfNodes(t *testing.T) {
	c := config()
	c.Repeat = 1
	c.Nodes = NodeOptions{
		Brokers: []string{"memory", "redis"}, Publishers: []int{1, 64}, Uploads: 10, Rates: []float64{2000}, Loads: []float64{0.5}, Yardsticks: true,
	}
	want := []string{
		"S9 shoal # 1 publishers memory", "S9 shoal # 64 publishers memory",
		"S9 shoal # 1 publishers redis", "S9 redis-benchmark, PUBLISH # 1 publishers redis",
		"S9 redis-benchmark, same script # 1 publishers redis",
		"S9 shoal # 64 publishers redis", "S9 redis-benchmark, PUBLISH # 64 publishers redis",
		"S9 redis-benchmark, same script # 64 publishers redis",
		"S9 latency shoal # 256 publishers 2000/s memory", "S9 latency shoal # 256 publishers 0/s memory",
		"S9 latency shoal # 256 publishers 2000/s redis", "S9 latency shoal # 256 publishers 0/s redis",
	}
	if got := order(planned(t, c)); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the plan is\n%s", strings.Join(got, "\n"))
	}
	r := &run{nodes: map[results.Params][]float64{}}
	for _, came := range []struct {
		broker                string
		publishers, perSecond int
	}{{"redis", 1, 10}, {"redis", 64, 500}, {"redis", 64, 300}, {"redis", 64, 400}, {"memory", 1, 900}} {
		r.note(results.Record{
			Scenario: Nodes, System: "shoal", Params: results.Params{Work: came.broker, Publishers: came.publishers},
			Metrics: map[results.Metric]float64{results.Throughput: float64(came.perSecond)},
		})
	}
	if got := r.nodeCapacity("redis"); got != 400 {
		t.Errorf("the capacity is %v, want the median of the best, 400", got)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for want, spoil := range map[string]func(*Config){
		"--scenario is S9":        func(c *Config) { c.Scenarios = []string{"S9"} },
		"--system is nobody":      func(c *Config) { c.Systems = []string{"nobody"} },
		"--repeat is 0":           func(c *Config) { c.Repeat = 0 },
		"--connections is 900000": func(c *Config) { c.Connections = 900_000_000 },
		"--idle is 0":             func(c *Config) { c.Idle = []int{0} },
		"--stalled is 1":          func(c *Config) { c.Stalled = []float64{1} },
		"--share is 2":            func(c *Config) { c.Loads = []float64{2} },
		"--subscribers is 0":      func(c *Config) { c.Subscribers = []int{0} },
		"--rate is -1":            func(c *Config) { c.Rate = -1 },
		"--patience is 0s":        func(c *Config) { c.Patience = 0 },
		"--uploads is 0":          func(c *Config) { c.Nodes.Brokers = []string{"nats"} },
		"10 bytes":                func(c *Config) { c.Bytes = 10 },
	} {
		c := config()
		if err := c.validate(); err != nil {
			t.Fatal(err)
		}
		spoil(&c)
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one with %q", err, want)
		}
	}
}

func TestThroughputAddsUpRounds(t *testing.T) {
	g := &group{config: config(), trial: trial{scenario: Single, params: results.Params{Connections: 10, Channels: 1}}}
	var rounds []round
	for i, took := range []time.Duration{1, 2, 9} { // milliseconds
		began := int64(i) * int64(time.Second)
		rounds = append(rounds, round{
			server:    serverproc.Answer{Began: began, CPUBefore: 1000},
			clients:   loadgen.Answer{Ended: began + int64(took*time.Millisecond), Complete: true, CPU: 4_001_000},
			delivered: 10, expected: 10,
		})
	}
	m, err := g.throughputOf(rounds, 1000, serverproc.Answer{CPU: 12_001_000, RSS: 5000})
	if err != nil {
		t.Fatal(err)
	}
	for metric, want := range map[results.Metric]float64{
		results.Throughput: 2500, results.ServerCPU: 400_000, results.ToLast: 2, results.GeneratorShare: 0.25,
		results.Resident: 500, results.Rounds: 3, results.Delivered: 30, results.Expected: 30,
	} {
		if got := m[metric]; got < want*0.999 || got > want*1.001 {
			t.Errorf("%s is %v, want %v", metric, got, want)
		}
	}
	rounds[2].clients.Complete = false
	if _, err := g.throughputOf(rounds, 0, serverproc.Answer{}); err == nil {
		t.Error("nobody complains of what is missing")
	}
}

// S10 is measured by name only, with every library and without yardsticks.
func TestPlanOfFreshness(t *testing.T) {
	c := config()
	c.Scenarios, c.Repeat = []string{Fresh}, 1
	trials := planned(t, c)
	if len(trials) != 2*7 || trials[0].params.Kbits != 64 || trials[1].params.DelayMS != 1 || trials[1].params.Loss != 0.01 {
		t.Errorf("%d trials are planned: %+v", len(trials), trials)
	}
}

func TestPlanOverTLS(t *testing.T) {
	c := config()
	c.TLS = true
	for _, tr := range planned(t, c) {
		if !tr.params.TLS || tr.scenario == Direct || tr.scenario == Intake {
			t.Errorf("planned: %+v", tr)
		}
	}
}

func TestCloseCode(t *testing.T) {
	for explanation, want := range map[string]float64{
		"": 0, "the server ended the connection without a close frame": 0, "client 0: the server closed the connection with 3008, slow": 3008,
	} {
		if got := closeCode(explanation); got != want {
			t.Errorf("the code of %q is %v, want %v", explanation, got, want)
		}
	}
}

func TestReceivers(t *testing.T) {
	for p, want := range map[results.Params]int{
		{Connections: 100, Channels: 1}:                100,
		{Connections: 100, Channels: 1, Stalled: 0.05}: 95,
		{Connections: 100, Channels: 100}:              1,
	} {
		s := &session{trial: trial{params: p}}
		if got := s.receivers(); got != want {
			t.Errorf("with %+v %d clients get a message, want %d", p, got, want)
		}
	}
}

func TestProgressTellsWhatIsLeft(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, 12)
	tr := planned(t, config())[0]
	p.begins(tr)
	p.ends(results.Record{Metrics: map[results.Metric]float64{results.Throughput: 1234, results.GeneratorShare: 0.3}})
	p.begins(tr)
	p.ends(results.Record{Error: "it broke"})
	p.skipped(tr)
	for _, want := range []string{
		"12 measurements", "[ 1/12] S1 shoal", "1234 msg/s, generator 30%", "left)", "[ 2/12]", "FAILED: it broke", "[ 3/12] S1 shoal",
		"left out",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{9, 1, 2}); got != 2 {
		t.Errorf("the median of three is %v", got)
	}
	if got := median([]float64{4, 1, 2, 9}); got != 3 {
		t.Errorf("the median of four is %v", got)
	}
}

package runner

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var clientsOf = Clients{Connections: 100, Burst: 40}

func config() Config {
	return Config{
		Common: Common{Repeat: 2, Bytes: 256, Measure: time.Second, Duration: time.Second, Patience: time.Minute},
		Scenarios: &Scenarios{
			Clients: clientsOf, Idle: []int{50, 150}, UnicastRounds: 10, Share: []float64{0.5}, Stalled: []float64{0, 0.05},
			Subscribers: []int{1, 10}, Rate: 1000, Publishers: 16, Batch: 40, Uploads: 1000, Kbits: []int{64, 160},
			Delay: []time.Duration{time.Millisecond}, Loss: []float64{0.01}, States: 150, StateBytes: 600, Settle: time.Second,
		},
	}
}

// sweeping is a configuration of these sweeps, with two values each.
func sweeping(names ...string) Config {
	c := config()
	c.Scenarios, c.Sweeps = nil, &Sweeps{
		Clients: clientsOf, Names: names, Population: 1000, Receivers: []int{10, 2000}, Logical: []int{10, 20}, Procs: []int{1, 2},
		Sockets: []int{10, 20}, Bursts: []int{1, 5}, Stalled: []float64{0, 0.5}, Servers: []int{1, 3},
	}
	return c
}

// order writes a plan down, trial by trial.
func order(trials []trial) []string {
	var lines []string
	for _, t := range trials {
		lines = append(lines, strings.Join([]string{t.name(), t.entry.Name, strings.Repeat("#", t.repeat), variant(t.params)}, " "))
	}
	return lines
}

func expect(t *testing.T, c Config, want ...string) {
	t.Helper()
	if got := order(c.plan()); !slices.Equal(got, want) {
		t.Errorf("the plan is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPlan_Interleaves(t *testing.T) {
	c := config()
	c.Scenarios.System = []string{"shoal", "gws-upgrade", "write-loop"}
	c.Scenarios.Scenario = []string{"S6", "S4"}
	expect(t, c,
		"S4 shoal # 100 clients 0/s", "S4 shoal # 100 clients 0/s 5% stalled",
		"S4 write-loop # 100 clients 0/s", "S4 write-loop # 100 clients 0/s 5% stalled",
		"S4 write-loop ## 100 clients 0/s", "S4 write-loop ## 100 clients 0/s 5% stalled",
		"S4 shoal ## 100 clients 0/s", "S4 shoal ## 100 clients 0/s 5% stalled",
		"S6 shoal # 100 clients", "S6 gws-upgrade # 100 clients",
		"S6 gws-upgrade ## 100 clients", "S6 shoal ## 100 clients",
	)
}

// Each scenario is measured with each system that takes part, S10 only by name and S10 to S12 not over TLS.
func TestPlan_HasEverything(t *testing.T) {
	t.Setenv("PATH", "") // without redis-server
	for _, c := range []struct {
		tls   bool
		named []string
		want  map[string]int
	}{
		{false, nil, map[string]int{"S1": 18, "S2": 18, "S3": 18, "S4": 36, "S5": 36, "S6": 16, "S11": 20, "S12": 2 * (7 + 3)}},
		{true, nil, map[string]int{"S1": 18, "S2": 18, "S3": 18, "S4": 36, "S5": 36, "S6": 16}},
		{false, []string{results.Fresh}, map[string]int{"S10": 2 * 2 * 7}},
	} {
		config := config()
		config.Scenarios.TLS, config.Scenarios.Scenario = c.tls, c.named
		seen := map[string]int{}
		for _, tr := range config.plan() {
			seen[tr.scenario]++
			if tr.scenario == Unicast && (tr.params.Channels != 100 || tr.params.Messages != 1000) || tr.params.TLS != c.tls {
				t.Errorf("%s is run with %+v", tr.scenario, tr.params)
			}
		}
		for scenario, want := range c.want {
			if seen[scenario] != want || len(seen) != len(c.want) {
				t.Errorf("%s has %d trials of %v, want %d", scenario, seen[scenario], seen, want)
			}
		}
	}
}

// A broker's yardsticks are measured right after it, with as much in flight; latency comes when capacities are known.
func TestPlan_Nodes(t *testing.T) {
	c := config()
	c.Repeat, c.Scenarios, c.Nodes = 1, nil, &Nodes{
		Brokers: []string{"memory", "redis"}, Publishers: []int{1, 64}, Uploads: 10, Rates: []float64{2000}, Share: []float64{0.5}, Yardsticks: true,
	}
	expect(t, c,
		"S9 shoal # 1 publishers memory", "S9 shoal # 64 publishers memory",
		"S9 shoal # 1 publishers redis", "S9 redis-benchmark, PUBLISH # 1 publishers redis",
		"S9 redis-benchmark, same script # 1 publishers redis",
		"S9 shoal # 64 publishers redis", "S9 redis-benchmark, PUBLISH # 64 publishers redis",
		"S9 redis-benchmark, same script # 64 publishers redis",
		"S9 latency shoal # 256 publishers 2000/s memory", "S9 latency shoal # 256 publishers 0/s memory",
		"S9 latency shoal # 256 publishers 2000/s redis", "S9 latency shoal # 256 publishers 0/s redis",
	)
	r := &run{capacities: map[results.Params][]float64{}}
	for _, measured := range []struct {
		broker                string
		publishers, perSecond int
	}{{"redis", 1, 10}, {"redis", 64, 500}, {"redis", 64, 300}, {"redis", 64, 400}, {"memory", 1, 900}} {
		r.note(results.Record{
			Scenario: results.Nodes, System: "shoal", Params: results.Params{Work: measured.broker, Publishers: measured.publishers},
			Metrics: map[results.Metric]float64{results.Throughput: float64(measured.perSecond)},
		})
	}
	if got := r.nodeCapacity("redis"); got != 400 {
		t.Errorf("the capacity is %v, want the median of the best, 400", got)
	}
}

// The values of a sweep alternate within a repetition, each measured as a scenario is, or without sockets.
func TestPlan_Sweeps(t *testing.T) {
	for sweep, want := range map[string][]string{
		Receivers: {
			"shoal # 10 clients broadcast 1 cores", "shoal # 10 clients broadcast 2 cores",
			"shoal # 10 clients broadcast, shuffled 2 cores", "shoal # 2000 clients broadcast 1 cores",
			"shoal # 2000 clients broadcast 2 cores", "shoal # 2000 clients broadcast, shuffled 2 cores",
		},
		Logical: {
			"shoal # 10 clients one upload for all", "shoal # 10 clients one upload each",
			"shoal # 20 clients one upload for all", "shoal # 20 clients one upload each",
		},
		Cores: {
			"shoal # 1000 clients publish 1 cores", "shoal # 1000 clients subscribe 1 cores",
			"shoal # 1000 clients broadcast 1 cores", "shoal # 100 clients ×40 bursts over sockets 1 cores",
			"shoal # 1000 clients publish 2 cores", "shoal # 1000 clients subscribe 2 cores",
			"shoal # 1000 clients broadcast 2 cores", "shoal # 100 clients ×40 bursts over sockets 2 cores",
		},
		Sockets: {"shoal # 10 clients", "write-loop # 10 clients", "shoal # 20 clients", "write-loop # 20 clients"},
		Bursts:  {"shoal # 100 clients", "joined-write # 100 clients", "shoal # 100 clients ×5", "joined-write # 100 clients ×5"},
		Stalls:  {"shoal # 100 clients 0/s", "shoal # 100 clients 0/s 50% stalled"},
		Servers: {
			"shoal # 100 clients 1 servers", "shoal # 100 clients ×40 1 servers",
			"shoal # 99 clients 3 servers", "shoal # 99 clients ×40 3 servers",
		},
	} {
		c := sweeping(sweep)
		var twice []string
		for _, repeat := range []string{"#", "##"} {
			for _, line := range want {
				twice = append(twice, sweep+" "+strings.Replace(line, "#", repeat, 1))
			}
		}
		expect(t, c, twice...)
	}
}

func TestConfig_IsValidated(t *testing.T) {
	invalid := map[string]Config{}
	spoil := func(want string, c Config, change func(*Config)) {
		if err := c.validate(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		invalid[want] = c
	}
	spoil(`--scenario is "S9"`, config(), func(c *Config) { c.Scenarios.Scenario = []string{"S9"} })
	spoil(`--system is "nobody"`, config(), func(c *Config) { c.Scenarios.System = []string{"nobody"} })
	spoil("--repeat is 0", config(), func(c *Config) { c.Repeat = 0 })
	spoil("--connections is 900000000", config(), func(c *Config) { c.Scenarios.Connections = 900_000_000 })
	spoil("--idle is 0", config(), func(c *Config) { c.Scenarios.Idle = []int{0} })
	spoil("--stalled is 1", config(), func(c *Config) { c.Scenarios.Stalled = []float64{1} })
	spoil("--share is 2", config(), func(c *Config) { c.Scenarios.Share = []float64{2} })
	spoil("--rate is -1", config(), func(c *Config) { c.Scenarios.Rate = -1 })
	spoil("--patience is 0", config(), func(c *Config) { c.Patience = 0 })
	spoil("10 bytes", config(), func(c *Config) { c.Bytes = 10 })
	spoil(`sweep is "flight"`, sweeping(), func(c *Config) { c.Sweeps.Names = []string{"flight"} })
	spoil("--logical is 1000001", sweeping(), func(c *Config) { c.Sweeps.Logical = []int{1_000_001} })
	spoil("--bursts is 1025", sweeping(), func(c *Config) { c.Sweeps.Bursts = []int{1025} })
	spoil("--servers is 16", sweeping(), func(c *Config) { c.Sweeps.Connections, c.Sweeps.Servers = 15, []int{16} })
	spoil("--uploads is 0", config(), func(c *Config) { c.Nodes = &Nodes{} })
	for want, c := range invalid {
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one with %q", err, want)
		}
	}
}

func TestThroughput_AddsUpRounds(t *testing.T) {
	m := &measurement{trial: trial{scenario: Single, params: results.Params{Connections: 10, Channels: 1}}, figures: results.Figures{}}
	var rounds []round
	for i, took := range []time.Duration{1, 2, 9} { // milliseconds
		began := int64(i) * int64(time.Second)
		rounds = append(rounds, round{
			Published: serverproc.Published{Began: began, Before: worker.Usage{CPU: 1000}},
			Received:  loadgen.Received{Ended: began + int64(took*time.Millisecond), CPU: 4_001_000}, delivered: 10, expected: 10,
		})
	}
	m.throughputOf(rounds, 1000, worker.Usage{CPU: 12_001_000, Resident: 5000})
	for metric, want := range map[results.Metric]float64{
		results.Throughput: 2500, results.ServerCPU: 400_000, results.ToLast: 2, results.GeneratorShare: 0.25,
		results.Resident: 500, results.Rounds: 3, results.Delivered: 30, results.Expected: 30,
	} {
		if got := m.figures[metric]; got < want*0.999 || got > want*1.001 || m.err != nil {
			t.Errorf("%s is %v, want %v, %v", metric, got, want, m.err)
		}
	}
	rounds[2].Missing = "much"
	if m.throughputOf(rounds, 0, worker.Usage{}); m.err == nil {
		t.Error("missing messages are no error")
	}
}

// A round of several servers lasts from the first start to the last end, and costs the sum of their costs.
func TestRound_OfSeveralServers(t *testing.T) {
	at := func(began, ended int64, missing string) round {
		return round{
			Published: serverproc.Published{Began: began, Before: worker.Usage{CPU: 10}},
			Received:  loadgen.Received{Ended: ended, CPU: 5, Closed: 1, Missing: missing}, delivered: 3, expected: 4,
		}
	}
	r := together([]round{at(100, 200, ""), at(90, 150, "much"), at(120, 300, "")})
	if r.took() != 210 || r.Before.CPU != 30 || r.CPU != 15 || r.delivered != 9 || r.expected != 12 || r.Closed != 3 || r.missing() == nil {
		t.Errorf("the round is %+v", r)
	}
	if r = together([]round{at(1, 2, "")}); r.missing() != nil || r.took() != 1 {
		t.Errorf("one round alone is %+v", r)
	}
}

// Each message is for the clients of its channel that read.
func TestSession_Expects(t *testing.T) {
	for q, want := range map[results.Params]uint64{
		{Channels: 1, Messages: 3}: 3 * 95, {Channels: 95, Messages: 950}: 950, {Channels: 5, Messages: 40}: 40 * 19,
	} {
		if got := (&session{connections: 100, stalled: 5}).expects(q); got != want {
			t.Errorf("of %+v %d messages are expected, want %d", q, got, want)
		}
	}
}

// After a failure nothing more is done, and there are no figures.
func TestMeasure_KeepsFirstFailure(t *testing.T) {
	broken := errors.New("broken")
	figures, err := measure(t.Context(), config(), trial{measure: func(m *measurement) {
		m.check(broken)
		m.check(errors.New("later"))
		m.figures[results.Throughput] = float64(call[int](m, m.start("serve", nil), 0, "Subscriptions", worker.None{}))
	}})
	if !errors.Is(err, broken) || figures != nil {
		t.Errorf("measured are %v, %v", figures, err)
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

func TestProgressTellsWhatIsLeft(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, 12)
	tr := config().plan()[0]
	p.begins(tr)
	p.ends(results.Record{Metrics: map[results.Metric]float64{results.Throughput: 1234, results.GeneratorShare: 0.3}})
	p.begins(tr)
	p.ends(results.Record{Error: "it broke"})
	p.skipped(tr)
	for _, want := range []string{
		"12 measurements", "[ 1/12] S1 shoal", "generator_cpu_share 0.30, messages_per_second 1,234", "left)", "[ 2/12]",
		"FAILED: it broke", "[ 3/12] S1 shoal", "left out",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
}

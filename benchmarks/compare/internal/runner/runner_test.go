package runner

import (
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

func config(f Flags) Config {
	return Config{Flags: f, Common: Common{Repeat: 2, Bytes: 256, Measure: time.Second, Duration: time.Second, Patience: time.Minute}}
}

func flags() *Scenarios {
	return &Scenarios{
		Clients: clientsOf, Idle: []int{50, 150}, UnicastRounds: 10, Share: []float64{0.5}, Stalled: []float64{0, 0.05},
		Subscribers: []int{1, 10}, Rate: 1000, Publishers: 16, Batch: 40, Uploads: 1000, Kbits: []int{64, 160},
		Delay: []time.Duration{time.Millisecond}, Loss: []float64{0.01}, States: 150, StateBytes: 600, Settle: time.Second,
	}
}

// order writes a plan down, trial by trial.
func order(trials []trial) []string {
	var lines []string
	for _, t := range trials {
		lines = append(lines, strings.Join([]string{t.scenario.name, t.entry.Name, strings.Repeat("#", t.repeat), variant(t.params)}, " "))
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
	f := flags()
	f.System = []string{"shoal", "gws-upgrade", "write-loop"}
	f.Scenario = []string{"S6", "S4"}
	const calm, stalled = " connections:100 channels:1 bytes:256 load:0.5", " connections:100 channels:1 bytes:256 stalled:0.05 load:0.5"
	const storm = " connections:100 channels:100"
	expect(t, config(f),
		"S4 shoal #"+calm, "S4 write-loop #"+calm, "S4 shoal #"+stalled, "S4 write-loop #"+stalled,
		"S4 write-loop ##"+calm, "S4 shoal ##"+calm, "S4 write-loop ##"+stalled, "S4 shoal ##"+stalled,
		"S6 shoal #"+storm, "S6 gws-upgrade #"+storm, "S6 gws-upgrade ##"+storm, "S6 shoal ##"+storm,
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
		f := flags()
		f.TLS, f.Scenario = c.tls, c.named
		seen := map[string]int{}
		for _, tr := range config(f).plan() {
			name := tr.scenario.name
			seen[name]++
			if name == Unicast && (tr.params.Channels != 100 || tr.params.Messages != 1000) || tr.params.TLS != c.tls {
				t.Errorf("%s is run with %+v", name, tr.params)
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
	c := config(&Nodes{
		Brokers: []string{"memory", "redis"}, Publishers: []int{1, 64}, Uploads: 10, Rates: []float64{2000}, Share: []float64{0.5}, Yardsticks: true,
	})
	c.Repeat = 1
	const upTo, memory, redis = " connections:0 channels:10 bytes:256 ", " work:memory", " work:redis"
	expect(t, c,
		"S9 shoal #"+upTo+"publishers:1"+memory, "S9 shoal #"+upTo+"publishers:64"+memory,
		"S9 shoal #"+upTo+"publishers:1"+redis, "S9 redis-benchmark, PUBLISH #"+upTo+"publishers:1"+redis,
		"S9 redis-benchmark, same script #"+upTo+"publishers:1"+redis,
		"S9 shoal #"+upTo+"publishers:64"+redis, "S9 redis-benchmark, PUBLISH #"+upTo+"publishers:64"+redis,
		"S9 redis-benchmark, same script #"+upTo+"publishers:64"+redis,
		"S9 latency shoal #"+upTo+"rate:2000 publishers:256"+memory, "S9 latency shoal #"+upTo+"load:0.5 publishers:256"+memory,
		"S9 latency shoal #"+upTo+"rate:2000 publishers:256"+redis, "S9 latency shoal #"+upTo+"load:0.5 publishers:256"+redis,
	)
}

// The capacity of a broker is the median of its best number of publishers, and of a server the median of the write loop.
func TestCapacity(t *testing.T) {
	r := &run{}
	for _, measured := range []struct {
		scenario, system, broker string
		publishers               int
		perSecond                float64
	}{
		{results.Nodes, "shoal", "redis", 1, 10}, {results.Nodes, "shoal", "redis", 64, 500}, {results.Nodes, "shoal", "redis", 64, 300},
		{results.Nodes, "shoal", "redis", 64, 400}, {results.Nodes, "shoal", "memory", 1, 900}, {results.Nodes, "another", "redis", 1, 999},
		{Single, "shoal", "", 0, 1}, {Single, "write-loop", "", 0, 70}, {Burst, "write-loop", "", 0, 2},
	} {
		r.records = append(r.records, results.Record{
			Scenario: measured.scenario, System: measured.system, Params: results.Params{Work: measured.broker, Publishers: measured.publishers},
			Metrics: results.Figures{results.Throughput: measured.perSecond},
		})
	}
	for p, want := range map[results.Params]float64{{Work: "redis", Publishers: 256}: 400, {Work: "nats", Publishers: 256}: 0, {}: 70} {
		if got := r.capacity(p); got != want {
			t.Errorf("the capacity of %+v is %v, want %v", p, got, want)
		}
	}
}

// The values of a sweep alternate within a repetition, each measured as a scenario is, or without sockets.
func TestPlan_Sweeps(t *testing.T) {
	const sized = " channels:1 bytes:256"
	for sweep, want := range map[string][]string{
		Receivers: {
			"shoal # connections:10" + sized + " procs:1 work:broadcast", "shoal # connections:10" + sized + " procs:2 work:broadcast",
			"shoal # connections:10" + sized + " procs:2 work:broadcast  shuffled", "shoal # connections:20" + sized + " procs:1 work:broadcast",
			"shoal # connections:20" + sized + " procs:2 work:broadcast", "shoal # connections:20" + sized + " procs:2 work:broadcast  shuffled",
		},
		Logical: {
			"shoal # connections:10" + sized + " work:one upload for all", "shoal # connections:10 channels:10 bytes:256 work:one upload each",
			"shoal # connections:20" + sized + " work:one upload for all", "shoal # connections:20 channels:20 bytes:256 work:one upload each",
		},
		Cores: {
			"shoal # connections:1000 channels:1000 bytes:256 procs:2 work:publish",
			"shoal # connections:1000 channels:1000 bytes:256 procs:2 work:subscribe",
			"shoal # connections:1000" + sized + " procs:2 work:broadcast",
			"shoal # connections:100 channels:1 messages:40 bytes:256 procs:2 work:bursts over sockets",
		},
		Sockets: {
			"shoal # connections:10 channels:1 messages:1 bytes:256", "write-loop # connections:10 channels:1 messages:1 bytes:256",
			"shoal # connections:20 channels:1 messages:1 bytes:256", "write-loop # connections:20 channels:1 messages:1 bytes:256",
		},
		Bursts: {
			"shoal # connections:100 channels:1 messages:1 bytes:256", "joined-write # connections:100 channels:1 messages:1 bytes:256",
			"shoal # connections:100 channels:1 messages:5 bytes:256", "joined-write # connections:100 channels:1 messages:5 bytes:256",
		},
		Stalls: {"shoal # connections:100" + sized + " load:0.5", "shoal # connections:100" + sized + " stalled:0.5 load:0.5"},
		Servers: {
			"shoal # connections:99 channels:1 messages:1 bytes:256 servers:3", "shoal # connections:99 channels:1 messages:40 bytes:256 servers:3",
		},
	} {
		c := config(&Sweeps{
			Clients: clientsOf, Names: []string{sweep}, Population: 1000, Receivers: []int{10, 20}, Logical: []int{10, 20}, Procs: []int{2},
			Sockets: []int{10, 20}, Bursts: []int{1, 5}, Stalled: []float64{0, 0.5}, Servers: []int{3},
		})
		c.Repeat = 1
		for i := range want {
			want[i] = sweep + " " + want[i]
		}
		expect(t, c, want...)
	}
}

func TestThroughput_AddsUpRounds(t *testing.T) {
	m := &measurement{trial: trial{params: results.Params{Connections: 10, Channels: 1, Messages: 1}}, figures: results.Figures{}}
	var rounds []round
	for i, took := range []time.Duration{1, 2, 9} { // milliseconds
		began := int64(i) * int64(time.Second)
		rounds = append(rounds, round{
			Published: serverproc.Published{Began: began},
			Received:  loadgen.Received{Ended: began + int64(took*time.Millisecond), CPU: 4_001_000}, delivered: 10, expected: 10,
		})
	}
	m.throughputOf(rounds, 1000, worker.Usage{CPU: 1000}, worker.Usage{CPU: 12_001_000, Resident: 5000})
	for metric, want := range map[results.Metric]float64{
		results.Throughput: 2500, results.ServerCPU: 400_000, results.ToLast: 2, results.GeneratorShare: 0.25,
		results.Resident: 500, results.Rounds: 3, results.Delivered: 30, results.Expected: 30,
	} {
		if got := m.figures[metric]; got < want*0.999 || got > want*1.001 || m.err != nil {
			t.Errorf("%s is %v, want %v, %v", metric, got, want, m.err)
		}
	}
	rounds[2].Missing = "much"
	if m.throughputOf(rounds, 0, worker.Usage{}, worker.Usage{}); m.err == nil {
		t.Error("missing messages are no error")
	}
}

// A round of several servers lasts from the first start to the last end, and costs the sum of their costs.
func TestRound_OfSeveralServers(t *testing.T) {
	var r round
	for i, one := range []struct {
		began, ended int64
		missing      string
	}{{100, 200, ""}, {90, 150, "much"}, {120, 300, ""}} {
		r.add(serverproc.Published{Began: one.began}, loadgen.Received{Ended: one.ended, CPU: 5, Messages: 3, Closed: 1, Missing: one.missing})
		if i == 0 && (r.missing() != nil || r.took() != 100) {
			t.Errorf("one round alone is %+v", r)
		}
	}
	if r.took() != 210 || r.CPU != 15 || r.Messages != 9 || r.Closed != 3 || r.missing() == nil {
		t.Errorf("the round is %+v", r)
	}
}

// After a failure nothing counts as delivered, also where earlier rounds have been.
func TestRound_AfterFailure(t *testing.T) {
	g := group{&session{measurement: &measurement{err: errors.New("broken")}, connections: 1, awaited: 7}}
	if r := g.round(results.Params{Channels: 1, Messages: 1}); r.delivered != 0 || r.expected != 1 {
		t.Errorf("the round is %+v", r)
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
	figures, err := measure(t.Context(), config(flags()), trial{scenario: scenario{measure: func(m *measurement) {
		m.check(broken)
		m.check(errors.New("later"))
		m.figures[results.Throughput] = float64(call[int](m, m.start(nil, "server", ""), 0, "Server.Subscriptions", worker.None{}))
	}}})
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

func TestOutcome(t *testing.T) {
	got := outcome(results.Record{Error: "it broke", Metrics: results.Figures{results.Throughput: 1234, results.GeneratorShare: 0.3}})
	if want := "FAILED: it broke, generator_cpu_share 0.30, messages_per_second 1,234"; got != want {
		t.Errorf("the outcome is %q, want %q", got, want)
	}
}

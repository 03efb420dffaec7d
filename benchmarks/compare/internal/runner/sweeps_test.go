package runner

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
)

// sweeping is a configuration of these sweeps, with two values each.
func sweeping(names ...string) Config {
	c := config()
	c.Sweeps = Sweeps{
		Names: names, Population: 1000, Receivers: []int{10, 2000}, Logical: []int{10, 20}, Procs: []int{1, 2}, Sockets: []int{10, 20},
		Bursts: []int{1, 5}, Stalled: []float64{0, 0.5}, Servers: []int{1, 3},
	}
	return c
}

func TestSweepsInterleaveTheirValues(t *testing.T) {
	want := map[string][]string{
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
	}
	for _, sweep := range AllSweeps() {
		c := sweeping(sweep)
		if err := c.validate(); err != nil {
			t.Fatal(err)
		}
		var once, twice []string
		for _, line := range want[sweep] {
			once = append(once, sweep+" "+line)
			twice = append(twice, sweep+" "+strings.Replace(line, "#", "##", 1))
		}
		if got := order(planned(t, c)); !slices.Equal(got, slices.Concat(once, twice)) {
			t.Errorf("the plan is\n%s", strings.Join(got, "\n"))
		}
	}
}

func TestSweepsAreMeasuredAsScenariosAre(t *testing.T) {
	for sweep, want := range map[string]string{
		Receivers: inProcess, Logical: inProcess, Sockets: Single, Bursts: Burst, Stalls: Latency, Servers: Burst,
	} {
		for _, tr := range planned(t, sweeping(sweep)) {
			if tr.scenario != want || tr.name() != sweep {
				t.Errorf("a trial of %s is measured as %q under %q", sweep, tr.scenario, tr.name())
			}
		}
	}
}

func TestSweepsAreChecked(t *testing.T) {
	for want, spoil := range map[string]func(*Config){
		`"flight" is no sweep`:   func(c *Config) { c.Sweeps.Names = []string{"flight"} },
		"--receivers is 0":       func(c *Config) { c.Sweeps.Receivers = []int{0} },
		"--logical is 1000001":   func(c *Config) { c.Sweeps.Logical = []int{1_000_001} },
		"--procs is 0":           func(c *Config) { c.Sweeps.Procs = []int{1, 0} },
		"--sockets is 900000000": func(c *Config) { c.Sweeps.Sockets = []int{900_000_000} },
		"--bursts is 1025":       func(c *Config) { c.Sweeps.Bursts = []int{1025} },
		"--stalled is 1":         func(c *Config) { c.Sweeps.Stalled = []float64{1} },
		"--servers is 17":        func(c *Config) { c.Sweeps.Servers = []int{17} },
		"--servers is 16":        func(c *Config) { c.Connections, c.Sweeps.Servers = 15, []int{16} },
	} {
		c := sweeping(AllSweeps()...)
		spoil(&c)
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one with %q", err, want)
		}
	}
}

// A round of several servers lasts from the first start to the last end, and costs the sum of their costs.
func TestRoundsOfAGroup(t *testing.T) {
	at := func(began, ended int64, complete bool) round {
		return round{
			server:  serverproc.Answer{Began: began, CPUBefore: 10},
			clients: loadgen.Answer{Ended: ended, Complete: complete, CPU: 5, Closed: 1, Missing: "much"}, delivered: 3, expected: 4,
		}
	}
	r := together([]round{at(100, 200, true), at(90, 150, false), at(120, 300, true)})
	if r.took() != 210*time.Nanosecond || r.server.CPUBefore != 30 || r.clients.CPU != 15 || r.delivered != 9 || r.expected != 12 {
		t.Errorf("the round is %+v", r)
	}
	if r.clients.Complete || r.clients.Missing != "much" || r.clients.Closed != 3 || r.missingError() == nil {
		t.Errorf("nobody complains of what is missing: %+v", r)
	}
	if r = together([]round{at(1, 2, true)}); r.missingError() != nil || r.took() != 1 {
		t.Errorf("one round alone is %+v", r)
	}
}

func TestProcessorsOfAServer(t *testing.T) {
	if env := procsOf(results.Params{}); env != nil {
		t.Errorf("without a number the environment is %q", env)
	}
	if env := procsOf(results.Params{Procs: 3}); !slices.Contains(env, "GOMAXPROCS=3") || len(env) < 2 {
		t.Errorf("the environment is %q", env)
	}
}

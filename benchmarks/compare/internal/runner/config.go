// Package runner measures: it starts a server and its clients as two processes, executes a scenario and records the
// results, system after system, interleaved and repeated.
package runner

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/link"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// The scenarios.
const (
	Burst   = "S1"
	Single  = "S2"
	Unicast = "S3"
	Latency = "S4"
	Memory  = "S5"
	Storm   = "S6"
	Fresh   = results.Fresh
	Direct  = results.Direct
	Intake  = results.Intake
)

// Scenarios lists them in their order.
func Scenarios() []string {
	return []string{Burst, Single, Unicast, Latency, Memory, Storm, Fresh, Direct, Intake}
}

// Config describes a measurement.
type Config struct {
	// Scenarios and Systems are names. None: all.
	Scenarios, Systems []string
	// Sweeps replaces the scenarios by sweeps over values of one parameter.
	Sweeps Sweeps
	// Nodes replaces the scenarios by measurements between nodes.
	Nodes NodeOptions
	// Repeat is how often everything is measured.
	Repeat int
	// Connections is the number of clients, in all scenarios but S5.
	Connections int
	// Idle are the numbers of idle connections of S5.
	Idle []int
	// Bytes is the size of a message.
	Bytes int
	// Burst is how many messages S1 publishes at once, UnicastRounds how many S3 publishes to each client.
	Burst, UnicastRounds int
	// Measure is the least time that S1, S2 and S3 go on for in each run.
	Measure time.Duration
	// Loads are the rates of S4, as shares of the write loop's throughput in S2, Stalled the shares of the
	// clients that do not read, and Duration how long each run of S4 takes.
	Loads, Stalled []float64
	Duration       time.Duration
	// Subscribers are the numbers of clients of S11, and Rate its messages per second.
	Subscribers []int
	Rate        float64
	// TLS has all clients connect over TLS.
	TLS bool
	// Publishers is how many publish at once in S12, Batch how many messages they put into a request, and Uploads to how
	// many uploads these go where they are many.
	Publishers, Batch, Uploads int
	// Kbits, Delays and Losses describe the links of S10, States is the number of messages per second there, and StateBytes
	// their size.
	Kbits      []int
	Delays     []time.Duration
	Losses     []float64
	States     float64
	StateBytes int
	// WarmUp is how long S10 publishes before it measures.
	WarmUp time.Duration
	// Centrifugo is the path of its program, "" for the installed one.
	Centrifugo string
	// Settle is how long the idle connections of S5 are left alone before their memory is looked at.
	Settle time.Duration
	// Patience bounds each single step of a run.
	Patience time.Duration
	// Results is the folder that results are written to; Profiles is where to put a processor profile of each
	// server, "" for none.
	Results, Profiles string
	// Program is this program, which is started as server and as clients.
	Program string
	// Progress receives a line per step.
	Progress io.Writer
}

// spareFiles is the number of files that a process needs beyond its connections.
const spareFiles = 100

func (c Config) validate() error {
	var all []error
	refuse := func(flag string, value any, want string) {
		all = append(all, fmt.Errorf("runner: --%s is %v, want %s", flag, value, want))
	}
	for _, name := range c.Scenarios {
		if !slices.Contains(Scenarios(), name) {
			refuse("scenario", name, "some of "+strings.Join(Scenarios(), ","))
		}
	}
	for _, name := range c.Systems {
		if !slices.Contains(systems.Names(), name) {
			refuse("system", name, "some of "+strings.Join(systems.Names(), ","))
		}
	}
	var limit unix.Rlimit
	most := 1 << 20
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		most = int(min(limit.Cur, uint64(most))) - spareFiles
	}
	for flag, connections := range map[string][]int{"connections": {c.Connections}, "idle": c.Idle, "subscribers": c.Subscribers} {
		for _, n := range connections {
			if n < 1 || n > most {
				refuse(flag, n, fmt.Sprintf("1 to %d, which is what this system's limit of open files allows", most))
			}
		}
	}
	for flag, n := range map[string]int{"repeat": c.Repeat, "burst": c.Burst, "unicast-rounds": c.UnicastRounds} {
		if n < 1 {
			refuse(flag, n, "at least 1")
		}
	}
	for _, share := range slices.Concat(c.Loads, c.Nodes.Loads) {
		if !(share > 0 && share <= 1) {
			refuse("share", share, "more than 0, at most 1")
		}
	}
	if !(c.Rate >= 0 && c.Rate <= maxRate) {
		refuse("rate", c.Rate, fmt.Sprintf("at most %v", maxRate))
	}
	for _, share := range slices.Concat(c.Stalled, c.Sweeps.Stalled) {
		if !(share >= 0 && share < 1) {
			refuse("stalled", share, "at least 0, less than 1")
		}
	}
	if slices.Contains(c.Scenarios, Fresh) {
		all = append(all, link.Check(), message.CheckSize(c.StateBytes))
	}
	all = append(all, c.Sweeps.validate(most, c.Connections), c.Nodes.validate())
	for flag, d := range map[string]time.Duration{
		"measure": c.Measure, "duration": c.Duration, "settle": c.Settle, "patience": c.Patience,
	} {
		if d <= 0 {
			refuse(flag, d, "more than 0")
		}
	}
	return errors.Join(append(all, message.CheckSize(c.Bytes))...)
}

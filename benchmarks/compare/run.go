package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
)

type runCommand struct {
	Scenario []string `sep:"," placeholder:"S1,S2" help:"Scenarios to measure, of S1 to S6 and S10 to S12 (all but S10, which needs root)."`
	System   []string `sep:"," aliases:"systems" placeholder:"NAME" help:"Systems to measure, see compare systems (all)."`
	Repeat   int      `default:"5" help:"How often to measure everything."`

	Connections   int             `default:"5000" help:"Clients, in all scenarios but S5."`
	Idle          []int           `default:"5000,15000" help:"Idle clients of S5."`
	Bytes         int             `default:"256" help:"Size of a message."`
	Burst         int             `default:"40" help:"Messages that S1 publishes at once."`
	UnicastRounds int             `default:"10" help:"Messages to each client that S3 publishes at once."`
	Measure       time.Duration   `default:"3s" help:"How long a run of S1, S2, S3, S11 or S12 measures at least."`
	Share         []float64       `default:"0.5" help:"Rates of S4, as shares of what the write loop delivers in S2."`
	Stalled       []float64       `default:"0,0.05" help:"Shares of the clients of S4 that do not read."`
	Duration      time.Duration   `default:"10s" help:"How long a run of S4 or S10 takes."`
	Subscribers   []int           `default:"1,10" help:"Clients of S11."`
	Rate          float64         `default:"1000" help:"Messages per second of S11."`
	TLS           bool            `name:"tls" help:"Measure S1 to S6 over TLS."`
	Publishers    int             `default:"16" help:"Publishers of S12."`
	Batch         int             `default:"40" help:"Messages in a request of S12's batches."`
	Uploads       int             `default:"1000" help:"Uploads of S12's batches over many."`
	Kbits         []int           `default:"64,160,1000" help:"Links of S10, kbit/s."`
	Delay         []time.Duration `default:"50ms,300ms" help:"Delays of S10's links each way."`
	Loss          []float64       `default:"0.01" help:"Shares of the packets that S10's links lose."`
	States        float64         `default:"150" help:"Messages per second of S10."`
	StateBytes    int             `default:"600" help:"Size of S10's messages."`
	WarmUp        time.Duration   `default:"10s" help:"How long S10 publishes first, while buffers on the way fill up."`
	Centrifugo    string          `placeholder:"FILE" env:"COMPARE_CENTRIFUGO" help:"Program of Centrifugo (the one installed by naming centrifugo in --system)."`
	Settle        time.Duration   `default:"2s" help:"How long the idle clients of S5 are left alone first."`
	Patience      time.Duration   `default:"60s" help:"How long a single step may take."`

	Out      string `placeholder:"DIR" help:"Where the results go (benchmarks/results of the repository)."`
	Profiles string `placeholder:"DIR" help:"Where to put a processor profile of each server (none are taken)."`
}

// Run measures, and reports.
func (c *runCommand) Run(ctx context.Context, std streams) error {
	return measure(ctx, std, c.Out, runner.Config{
		Scenarios: c.Scenario, Systems: c.System, Repeat: c.Repeat,
		Connections: c.Connections, Idle: c.Idle, Bytes: c.Bytes, Burst: c.Burst, UnicastRounds: c.UnicastRounds,
		Measure: c.Measure, Loads: c.Share, Stalled: c.Stalled, Duration: c.Duration, Settle: c.Settle, Patience: c.Patience,
		Subscribers: c.Subscribers, Rate: c.Rate, TLS: c.TLS, Publishers: c.Publishers,
		Batch: c.Batch, Uploads: c.Uploads, Kbits: c.Kbits, Delays: c.Delay, Losses: c.Loss, States: c.States,
		StateBytes: c.StateBytes, WarmUp: c.WarmUp, Centrifugo: c.Centrifugo, Profiles: c.Profiles,
	})
}

// measure executes a configuration, writes the results into a folder and reports them.
func measure(ctx context.Context, std streams, out string, c runner.Config) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("compare: this program does not know where it lies: %w", err)
	}
	folder, err := resultsFolder(ctx, out)
	if err != nil {
		return err
	}
	c.Program, c.Results, c.Progress = program, folder, std.err
	name, err := runner.Run(ctx, c)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.err, "the results are in %s\n\n", name)
	return reportOn(std, folder, runOf(name), "")
}

// runOf is the name of the run that a file of results holds.
func runOf(name string) string {
	base := filepath.Base(name)
	return base[:len(base)-len(filepath.Ext(base))]
}

// resultsFolder is where results are kept.
func resultsFolder(ctx context.Context, given string) (string, error) {
	if given != "" {
		return given, nil
	}
	root := results.Root(ctx)
	if root == "" {
		return "", errors.New("compare: this is not inside the repository: say with --out where the results are kept")
	}
	return filepath.Join(root, "benchmarks", "results"), nil
}

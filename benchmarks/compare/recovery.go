package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/recovery"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
)

type recoveryCommand struct {
	Brokers []string `arg:"" optional:"" name:"broker" help:"nats, redis, simulated (all)."`

	Uploads  int           `default:"20000" help:"Uploads that the node follows."`
	Changed  float64       `default:"0.01" help:"Share of them that change while the node is cut off."`
	Cut      time.Duration `default:"2s" help:"How long the node is cut off."`
	Stored   int           `default:"5" help:"Messages that each upload has before."`
	Bytes    int           `default:"256" help:"Size of a message."`
	Rate     float64       `default:"500" help:"Live messages per second, half of them to uploads that change."`
	Repeat   int           `default:"1" help:"How often to measure everything."`
	Posts    int           `default:"500" help:"Messages of a round that compares HTTP with Manager.Publish (0: it is not compared)."`
	Patience time.Duration `default:"2m" help:"How long a single step may take."`

	SimulatedUploads int           `default:"250000" help:"Uploads with the simulated broker."`
	RoundTrip        time.Duration `default:"500us" help:"Time of a call to the simulated broker, beside its own."`
	Read             time.Duration `default:"30us" help:"Time that it needs to read one upload."`
	PerChannel       time.Duration `default:"4us" help:"Time that it needs for each channel of a subscription or comparison."`
}

// postRounds is the number of rounds that compare HTTP with Manager.Publish.
const postRounds = 5

// Run measures, and prints tables.
func (c *recoveryCommand) Run(ctx context.Context, std streams) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("compare: this program does not know where it lies: %w", err)
	}
	brokers := c.Brokers
	if len(brokers) == 0 {
		brokers = []string{recovery.NATS, recovery.Redis, recovery.Simulated}
	}
	table := tabwriter.NewWriter(std.out, 0, 0, 1, ' ', tabwriter.Debug)
	fmt.Fprintln(table, "broker\tuploads\tchanged\tfollowed\thealthy\tcurrent\tready\tlive before p50, p99"+
		"\tlive p50, p99, max\tchanged p50, p99, max\treads\tcompared\tin calls\tdisorder")
	for range c.Repeat {
		for _, name := range brokers {
			if err := c.trial(ctx, program, name, func(r recovery.Result, o recovery.Options) {
				fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s %s\t%s %s %s\t%s %s %s\t%d\t%d\t%d\t%d\n", name, o.Uploads, r.Changed,
					ms(r.Followed), ms(r.Healthy), ms(r.Current), ms(r.Ready), ms(r.Before.P50), ms(r.Before.P99),
					ms(r.Live.P50), ms(r.Live.P99), ms(r.Live.Max), ms(r.Behind.P50), ms(r.Behind.P99), ms(r.Behind.Max),
					r.Calls.Histories, r.Calls.Compared, r.Calls.Comparisons, r.Disorder)
			}, std); err != nil {
				return err
			}
		}
	}
	return table.Flush()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }

// trial measures one broker, with a server of its own.
func (c *recoveryCommand) trial(
	ctx context.Context, program, name string, report func(recovery.Result, recovery.Options), std streams,
) (err error) {
	o := recovery.Options{
		Broker: name, Uploads: c.Uploads, Stored: c.Stored, Bytes: c.Bytes, Changed: c.Changed, Cut: c.Cut, Rate: c.Rate,
		Model: recovery.Model{RoundTrip: c.RoundTrip, Read: c.Read, PerChannel: c.PerChannel}, Patience: c.Patience,
	}
	if name == recovery.Simulated {
		o.Uploads, o.Stored = c.SimulatedUploads, 1
	} else {
		url, end, err := runner.StartServer(ctx, program, name)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end()) }()
		o.URL = url
	}
	r, err := recovery.Run(ctx, o)
	if err != nil {
		return err
	}
	report(r, o)
	if name == recovery.Simulated || c.Posts == 0 {
		return nil
	}
	p, err := recovery.Post(ctx, o, postRounds, c.Posts)
	if err == nil {
		fmt.Fprintf(std.err, "%s: Publish %v; the API's handler %v, %.2f of it; a POST %v, %.2f of it, and %.2f of a POST to a minimal "+
			"handler, %v; %d posts made %d stores and %d reads\n", name, p.Publish, p.Handler, p.HandlerRatio, p.Post, p.PostRatio,
			p.MinimalRatio, p.Minimal, p.Messages, p.PostCalls.Stores, p.PostCalls.Histories+p.PostCalls.Newests)
	}
	return err
}

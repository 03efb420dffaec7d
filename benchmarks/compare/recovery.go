package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/recovery"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/internal/plot"
)

type recoveryCommand struct {
	Brokers []string `arg:"" optional:"" name:"broker" enum:"nats,redis,simulated" help:"${enum} (all)."`
	recovery.Options
	SimulatedUploads int `default:"250000" within:"1 to 1000000" help:"Uploads with the simulated broker."`
	Repeat           int `default:"1" within:"1 to 1000" help:"How often to measure everything."`
	Posts            int `default:"500" within:"0 to 1000000" help:"Messages of a round that compares HTTP with Manager.Publish (0: it is not compared)."`
}

// Run measures, and prints tables.
func (c *recoveryCommand) Run(ctx context.Context, std streams) error {
	brokers := c.Brokers
	if len(brokers) == 0 {
		brokers = []string{nodes.NATS, nodes.Redis, recovery.Simulated}
	}
	table := tabwriter.NewWriter(std.out, 0, 0, 1, ' ', tabwriter.Debug)
	fmt.Fprintln(table, "broker\tuploads\tchanged\tfollowed\thealthy\tcurrent\tready\tlive before p50, p99"+
		"\tlive p50, p99, max\tchanged p50, p99, max\treads\tcompared\tin calls\tdisorder")
	for range c.Repeat {
		for _, name := range brokers {
			if err := c.trial(ctx, name, table, std.err); err != nil {
				return err
			}
		}
	}
	return table.Flush()
}

// trial measures one broker, with a server of its own.
func (c *recoveryCommand) trial(ctx context.Context, name string, table, progress io.Writer) (err error) {
	o := c.Options
	if o.Broker = name; name == recovery.Simulated {
		o.Uploads, o.Stored = c.SimulatedUploads, 1
	} else {
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("compare: the path of this program is unknown: %w", err)
		}
		server, err := worker.Start(name, exec.Command(program, "process", "broker", name))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		started, err := worker.Begin[worker.Started](ctx, server, "Broker.Start", name)()
		if err != nil {
			return err
		}
		o.URL = started.Addr
	}
	r, err := recovery.Run(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(table, "%s\t%d\t%d\t%v\t%v\t%v\t%v\t%v\t%v\t%v\t%d\t%d\t%d\t%d\n", name, o.Uploads, r.Changed,
		times(r.Followed), times(r.Healthy), times(r.Current), times(r.Ready), times(r.Before.P50, r.Before.P99),
		times(r.Live.P50, r.Live.P99, r.Live.Max), times(r.Behind.P50, r.Behind.P99, r.Behind.Max),
		r.Calls.Histories, r.Calls.Compared, r.Calls.Comparisons, r.Disorder)
	if name == recovery.Simulated || c.Posts == 0 {
		return nil
	}
	const rounds = 5
	summary, err := recovery.Post(ctx, o, rounds, c.Posts)
	if err == nil {
		fmt.Fprintf(progress, "%s: %s\n", name, summary)
	}
	return err
}

// times writes nanoseconds.
func times[N ~int64](nanoseconds ...N) string {
	var all []string
	for _, n := range nanoseconds {
		all = append(all, plot.Duration(int64(n)))
	}
	return strings.Join(all, " ")
}

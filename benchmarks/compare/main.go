// Command compare measures this project beside its peers and the limits of the machine: see compare --help, and
// README.md for the scenarios.
//
// It starts itself as the server under test and as its clients (compare process), so that both have processes of their own, and
// calls them over their standard input and output.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/sinks"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// streams are the standard streams of a command.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// commands are the commands of compare.
type commands struct {
	Run      runCommand      `cmd:"" default:"withargs" set:"repeat=5" set:"measure=3s" set:"duration=10s" help:"Measure, and report the results (the default)."`
	Sweep    sweepCommand    `cmd:"" set:"repeat=3" set:"measure=500ms" set:"duration=3s" help:"Measure how the cost grows with the work, and report it."`
	Nodes    nodesCommand    `cmd:"" set:"repeat=5" set:"measure=1s" set:"duration=3s" help:"Measure messages that are published on one node and received on another, and report it."`
	Recovery recoveryCommand `cmd:"" help:"Measure the return of a node to its broker, and report it."`
	Report   reportCommand   `cmd:"" help:"Print tables of the results, and draw charts."`
	Systems  systemsCommand  `cmd:"" help:"List the systems that are compared."`

	Process processCommand `cmd:"" hidden:"" help:"Run a part of a measurement, which is called over standard input."`
}

// exit is panicked with where kong wants to end the process, so that execute can return instead.
type exit int

// execute runs the command line and returns the code to exit with.
func execute(ctx context.Context, arguments []string, std streams) (code int) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exit:
			code = int(r)
		default:
			panic(r)
		}
	}()
	parser, err := kong.New(new(commands),
		kong.Name("compare"),
		kong.Description("Measures this project beside its peers and the limits of the machine."),
		kong.Writers(std.out, std.err),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std),
		kong.Vars{
			"brokers": strings.Join(nodes.Brokers(), ", "), "sweeps": strings.Join(runner.AllSweeps(), ", "),
			"scenarios": strings.Join(runner.Names(), ", "), "systems": strings.Join(systems.Names(), ", "),
		},
	)
	if err != nil {
		fmt.Fprintln(std.err, err)
		return 2
	}
	parsed, err := parser.Parse(arguments)
	if err == nil {
		err = checkBounds(parsed.Flags())
	}
	if err != nil {
		fmt.Fprintf(std.err, "compare: %v; see compare --help\n", err)
		return 2
	}
	if err := parsed.Run(); err != nil {
		fmt.Fprintln(std.err, err)
		return 1
	}
	return 0
}

// checkBounds refuses values of flags outside of the bounds that their tag says, all at once.
func checkBounds(flags []*kong.Flag) error {
	var all []error
	for _, flag := range flags {
		least, most, bounded := strings.Cut(flag.Tag.Get("within"), " to ")
		values := flag.Target
		if !bounded {
			continue
		}
		if values.Kind() != reflect.Slice {
			values = reflect.Append(reflect.MakeSlice(reflect.SliceOf(values.Type()), 0, 1), values)
		}
		for _, v := range values.Seq2() {
			if n := number(fmt.Sprint(v)); !(n >= number(least) && n <= number(most)) {
				all = append(all, fmt.Errorf("--%s is %v, want %s to %s", flag.Name, v, least, most))
			}
		}
	}
	return errors.Join(all...)
}

// number reads a number or a duration, and returns NaN for anything else.
func number(text string) float64 {
	if d, err := time.ParseDuration(text); err == nil {
		return float64(d)
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return n
}

// processCommand is a process of a measurement. It has all parts, and plays the one that is called.
type processCommand struct {
	About []string `arg:"" optional:"" help:"What the process is, for lists of processes."`
}

// Run answers calls until standard input ends.
func (processCommand) Run(std streams) error {
	return worker.Serve(std.in, std.out, &serverproc.Server{}, &loadgen.Clients{}, &sinks.Sinks{}, &nodes.Node{}, &nodes.Broker{})
}

type systemsCommand struct{}

// Run lists the systems.
func (c *systemsCommand) Run(std streams) error {
	table := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, e := range systems.All() {
		fmt.Fprintf(table, "%s\t%s\t%s\n", e.Name, e.Kind, e.About)
	}
	return table.Flush()
}

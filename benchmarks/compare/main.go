// Command compare measures this project beside its peers and the limits of the machine: see compare --help, and
// README.md for the scenarios.
//
// It starts itself as the server under test (compare serve) and as the clients (compare load), so that both have processes
// of their own, and calls them over their standard input and output.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/serverproc"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/sinks"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
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

	// The processes of a measurement, which are called over standard input.
	Serve  serverproc.Options `cmd:"" hidden:"" help:"Run one system."`
	Load   loadgen.Command    `cmd:"" hidden:"" help:"Run the clients."`
	Sinks  sinks.Command      `cmd:"" hidden:"" help:"Run a manager without sockets."`
	Node   nodes.Options      `cmd:"" hidden:"" help:"Run a node."`
	Broker nodes.Server       `cmd:"" hidden:"" help:"Run the server of a broker."`
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
		kong.BindTo(std.in, (*io.Reader)(nil)),
		kong.BindTo(std.out, (*io.Writer)(nil)),
		kong.Vars{
			"brokers": "Brokers to measure: " + strings.Join(nodes.Brokers(), ", "),
			"sweeps":  "Parameters to sweep: " + strings.Join(runner.AllSweeps(), ", "),
		},
	)
	if err != nil {
		fmt.Fprintln(std.err, err)
		return 2
	}
	parsed, err := parser.Parse(arguments)
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

type systemsCommand struct{}

// Run lists the systems.
func (c *systemsCommand) Run(std streams) error {
	table := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, e := range systems.All() {
		fmt.Fprintf(table, "%s\t%s\t%s\n", e.Name, e.Kind, e.About)
	}
	return table.Flush()
}

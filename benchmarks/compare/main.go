// Command compare measures this project beside its peers and the limits of the machine: see compare --help, and
// README.md for the scenarios.
//
// It starts itself as the server under test (compare serve) and as the clients (compare load), so that both
// have processes of their own, and steers them over their standard input and output.
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
	Run      runCommand        `cmd:"" default:"withargs" help:"Measure, and report what was measured (the default)."`
	Sweep    sweepCommand      `cmd:"" help:"Measure how the cost grows with the work, and report it."`
	Nodes    nodesCommand      `cmd:"" help:"Measure what is published on one node and received on another, and report it."`
	Recovery recoveryCommand   `cmd:"" help:"Measure the return of a node to its broker, and report it."`
	Report   reportCommand     `cmd:"" help:"Print tables of what was measured, and draw charts."`
	Systems  systemsCommand    `cmd:"" help:"List the systems that are compared."`
	Serve    serveCommand      `cmd:"" hidden:"" help:"Run one system, steered over standard input."`
	Sinks    sinksCommand      `cmd:"" hidden:"" help:"Run a manager without sockets, steered over standard input."`
	Node     nodeCommand       `cmd:"" hidden:"" help:"Run a node, steered over standard input."`
	NATS     natsServerCommand `cmd:"" name:"nats-server" hidden:"" help:"Run a server of NATS until standard input ends."`
	Load     loadCommand       `cmd:"" hidden:"" help:"Run the clients, steered over standard input."`
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
		kong.Vars{"brokers": "Brokers to measure: " + strings.Join(nodes.Brokers(), ", "), "sweeps": "What to sweep: " + strings.Join(runner.AllSweeps(), ", ")},
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

type serveCommand struct {
	System     string `required:"" help:"Name of the system."`
	SendBuffer int    `help:"The kernel's send buffer of each connection, in bytes (0: the kernel decides)."`
	Host       string `help:"Address to listen on."`
	TLS        bool   `name:"tls" help:"Serve TLS."`
	Program    string `help:"Executable of a system that is a program."`
	Broker     string `help:"URL of the broker of this project's node."`
}

// Run serves until it receives quit.
func (c *serveCommand) Run(std streams) error {
	return serverproc.Run(serverproc.Options(*c), std.in, std.out)
}

type loadCommand struct{}

// Run holds the clients until it receives quit.
func (c *loadCommand) Run(ctx context.Context, std streams) error {
	return loadgen.Run(ctx, std.in, std.out)
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

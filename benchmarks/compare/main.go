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
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/loadgen"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/report"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
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
	Run      measureCommand[runner.Scenarios] `cmd:"" default:"withargs" set:"repeat=5" set:"measure=3s" set:"duration=10s" help:"Measure, and report the results (the default)."`
	Sweep    measureCommand[runner.Sweeps]    `cmd:"" set:"repeat=3" set:"measure=500ms" set:"duration=3s" help:"Measure how the cost grows with the work, and report it."`
	Nodes    measureCommand[runner.Nodes]     `cmd:"" set:"repeat=5" set:"measure=1s" set:"duration=3s" help:"Measure messages that are published on one node and received on another, and report it."`
	Recovery recoveryCommand                  `cmd:"" help:"Measure the return of a node to its broker, and report it."`
	Report   reportCommand                    `cmd:"" help:"Print tables of the results, and draw charts."`
	Systems  systemsCommand                   `cmd:"" help:"List the systems that are compared."`

	Process processCommand `cmd:"" hidden:"" help:"Run a part of a measurement, which is called over standard input."`
}

// execute runs the command line and returns the code to exit with.
func execute(ctx context.Context, arguments []string, std streams) int {
	helped := false
	parser, err := kong.New(new(commands),
		kong.Name("compare"),
		kong.Description("Measures this project beside its peers and the limits of the machine."),
		kong.Writers(std.out, std.err),
		kong.Exit(func(int) { helped = true }), // parsing goes on behind --help
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std),
		kong.Vars{
			"brokers": strings.Join(nodes.Brokers(), ", "), "sweeps": strings.Join(runner.AllSweeps(), ", "),
			"scenarios": strings.Join(runner.AllScenarios(), ", "), "systems": strings.Join(systems.Names(), ", "),
		},
	)
	if err != nil {
		fmt.Fprintln(std.err, err)
		return 2
	}
	parsed, err := parser.Parse(arguments)
	if helped {
		return 0
	}
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
		if !bounded {
			continue
		}
		for _, value := range strings.Fields(strings.Trim(fmt.Sprint(flag.Target), "[]")) { // one, or those of a slice
			if n := number(value); !(n >= number(least) && n <= number(most)) {
				all = append(all, fmt.Errorf("--%s is %s, want %s to %s", flag.Name, value, least, most))
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

// processCommand is a process of a measurement. It has all parts, of which the runner calls those that it needs.
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

// measureCommand is a command that measures.
type measureCommand[F any] struct {
	Flags F `embed:""`
	runner.Common
}

// Run measures as the flags say, writes the results into a folder and reports them.
func (m *measureCommand[F]) Run(ctx context.Context, std streams) (err error) {
	c := runner.Config{Common: m.Common, Flags: any(&m.Flags).(runner.Flags), Progress: std.err} // each F is one
	if c.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("compare: the path of this program is unknown: %w", err)
	}
	if c.Folder, err = resultsFolder(ctx, c.Out); err != nil {
		return err
	}
	name, err := runner.Run(ctx, c)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.err, "the results are in %s\n\n", name)
	data, err := load(c.Folder, strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)))
	if err != nil {
		return err
	}
	return data.Markdown(std.out)
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

// load returns the results of one run, or of the newest of each scenario.
func load(folder, run string) (report.Data, error) {
	records, err := results.Load(folder)
	if err != nil {
		return report.Data{}, err
	}
	return report.Select(records, run)
}

type reportCommand struct {
	Out    string `placeholder:"DIR" help:"Where the results are (benchmarks/results of the repository)."`
	ID     string `name:"run" placeholder:"ID" help:"The one run to report (the newest of each scenario)."`
	Readme string `placeholder:"FILE" help:"Markdown file to write the tables into, between the marks that it has for them."`
	Charts bool   `default:"true" negatable:"" help:"Draw the charts, into the same folder."`
}

// Run reports.
func (c *reportCommand) Run(ctx context.Context, std streams) error {
	folder, err := resultsFolder(ctx, c.Out)
	if err != nil {
		return err
	}
	data, err := load(folder, c.ID)
	if err != nil {
		return err
	}
	if c.Readme != "" {
		document, err := os.ReadFile(c.Readme)
		if err != nil {
			return err
		}
		filled, err := data.Fill(string(document))
		if err != nil {
			return err
		}
		return os.WriteFile(c.Readme, []byte(filled), 0o644) //nolint:gosec // a document of the repository
	}
	if err := data.Markdown(std.out); err != nil || !c.Charts {
		return err
	}
	names, err := data.Charts(folder)
	for _, name := range names {
		fmt.Fprintf(std.err, "drew %s\n", name)
	}
	return err
}

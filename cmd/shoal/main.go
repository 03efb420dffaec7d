// Command shoal runs the server and the small tools around it: see shoal --help.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// version is set by the linker for a release. If it is empty, the version of the module is used.
var version string

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// Exit statuses.
const (
	statusDone   = 0
	statusFailed = 1
	statusUsage  = 2
	// statusGivenUp means that shoal watch has ended before an upload had an outcome.
	statusGivenUp = 3
)

// commands are all there are. Each command's flags have an environment variable and a key in the file, too.
type commands struct {
	Config string `placeholder:"FILE" help:"YAML file of settings: the names of the flags, without the dashes."`

	Serve       serveCommand       `cmd:"" help:"Run the server."`
	Token       tokenCommand       `cmd:"" help:"Print a JSON Web Token for a user."`
	Publish     publishCommand     `cmd:"" help:"Publish messages to an upload, through the HTTP API."`
	Watch       watchCommand       `cmd:"" help:"Follow uploads in the terminal, with a progress bar for each."`
	Bench       benchCommand       `cmd:"" help:"Measure a running server under load: throughput and latency."`
	Health      healthCommand      `cmd:"" help:"Ask a running server for its health; the exit status tells."`
	CheckConfig checkConfigCommand `cmd:"" help:"Check the configuration of the server, and do nothing else."`
	Version     versionCommand     `cmd:"" help:"Print the version."`
}

// streams are the standard streams of a command.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// checker is a command whose settings can contradict each other.
type checker interface{ check(s *settings) }

// usageError is a command line or configuration that is wrong, one complaint a line.
type usageError []string

func (e usageError) Error() string { return strings.Join(e, "\n") }

// statusError is the end of a command with a status of its own, one line for each reason.
type statusError struct {
	status int
	lines  []string
}

func (e statusError) Error() string { return strings.Join(e.lines, "\n") }

// run runs one command and returns its exit status. It blocks until the command is done, or has been ended
// in an orderly way after ctx ended.
func run(ctx context.Context, args, env []string, in io.Reader, out, errs io.Writer) int {
	err := execute(ctx, args, env, streams{in, out, errs})
	if err == nil {
		return statusDone
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(errs, "shoal:", line)
	}
	var usage usageError
	var ended statusError
	switch {
	case errors.As(err, &usage):
		return statusUsage
	case errors.As(err, &ended):
		return ended.status
	}
	return statusFailed
}

func execute(ctx context.Context, args, env []string, std streams) error {
	caught := catchSignals(ctx, args)
	defer caught.stop()
	var parsed *kong.Context
	err := waitFor(caught.ctx, func() (err error) { // files of settings may hang
		parsed, err = prepare(args, env, std)
		return err
	})
	switch {
	case caught.ctx.Err() != nil && errors.Is(err, caught.ctx.Err()): // nothing is open yet
		return nil
	case err != nil || parsed == nil:
		return err
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.Bind(caught)
	return parsed.Run(std)
}

// prepare returns the command, ready to run, nil if it has printed the help instead.
func prepare(args, env []string, std streams) (*kong.Context, error) {
	s := newSettings(env)
	var help bytes.Buffer // in which writing never fails: Parse would return that as a mistake
	helped := false
	parser, err := newParser(s, streams{out: &help, err: std.err}, func(int) { helped = true })
	if err != nil {
		return nil, err
	}
	if slices.Equal(args, []string{"--version"}) {
		args = []string{"version"}
	}
	parsed, err := parser.Parse(args)
	if helped {
		return nil, printLine(std.out, strings.TrimSuffix(help.String(), "\n"))
	}
	if err != nil {
		return nil, usageError{mistake(err) + "; see " + helpCommand(err)}
	}
	command := selected(parsed)
	if c, ok := command.(*serveCommand); ok {
		started, hadSettings := c.serveFlags, len(s.file) > 0 // before they are checked
		parsed.Bind(reparse(func() (*reading, error) { return parseAgain(args, env, started, hadSettings) }))
	}
	parsed.Bind(s)
	return parsed, s.check(command)
}

// selected returns the command that a command line names.
func selected(parsed *kong.Context) any { return parsed.Selected().Target.Addr().Interface() }

// mistake describes an error of the command line. An unexpected argument beside a secret may be its second word.
func mistake(err error) string {
	text := err.Error()
	var parsing *kong.ParseError
	if !strings.HasPrefix(text, "unexpected argument ") || !errors.As(err, &parsing) {
		return text
	}
	for _, element := range parsing.Context.Path {
		if element.Flag != nil && isSecret(parsing.Context.Model.Node, element.Flag.Name) {
			return "unexpected argument beside --" + element.Flag.Name + "; a value with spaces must be quoted"
		}
	}
	return text
}

// isSecret reports whether the flag of a name is a secret of any command.
func isSecret(node *kong.Node, name string) bool {
	return slices.ContainsFunc(node.Flags, func(f *kong.Flag) bool { return f.Name == name && f.Tag.Has("secret") }) ||
		slices.ContainsFunc(node.Children, func(child *kong.Node) bool { return isSecret(child, name) })
}

// helpCommand returns the command line that explains a mistake: the help of the command, if one was recognized.
func helpCommand(err error) string {
	var parsing *kong.ParseError
	if errors.As(err, &parsing) && parsing.Context.Selected() != nil {
		return "shoal " + parsing.Context.Selected().Name + " --help"
	}
	return "shoal --help"
}

// parseAgain parses the command line of serve once more, with the files as they are now. started are the settings of
// the start. A file of --config that had settings then must have some: an editor may have emptied it for a moment.
func parseAgain(args, env []string, started serveFlags, hadSettings bool) (*reading, error) {
	s := newSettings(env)
	parser, err := newParser(s, streams{out: io.Discard, err: io.Discard}, func(int) {})
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return nil, errors.New(mistake(err))
	}
	if hadSettings && len(s.file) == 0 && s.err() == nil {
		return nil, errors.New("the file of --config is empty; to go back to the defaults, restart without it")
	}
	command, ok := selected(parsed).(*serveCommand)
	if !ok {
		return nil, errors.New("the command is not serve")
	}
	return reread(s, started, command.serveFlags)
}

func newParser(s *settings, std streams, exit func(int)) (*kong.Kong, error) {
	return kong.New(new(commands),
		kong.Name("shoal"),
		kong.Description("Brings the progress of uploads to all who follow them, live.\n\n"+
			"A flag may also be given as an environment variable, SHOAL_ and its name in capitals, or in the file "+
			"that --config names. A flag wins over the environment, the environment over the file."),
		kong.Writers(std.out, std.err),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ValueFormatter(helpOf),
		kong.Resolvers(s),
		kong.KindMapper(reflect.String, newMapper(s, parseText)),
		kong.KindMapper(reflect.Bool, boolMapper{newMapper(s, parseBool)}),
		kong.KindMapper(reflect.Int, newMapper(s, bounded("a whole number", parseInt))),
		kong.KindMapper(reflect.Float64, newMapper(s, bounded("a number", parseFloat))),
		kong.TypeMapper(reflect.TypeFor[[]string](), listMapper{s}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](),
			newMapper(s, bounded("a duration such as 1s or 1m30s,", time.ParseDuration))),
		kong.TypeMapper(reflect.TypeFor[size](),
			newMapper(s, bounded("a number of bytes such as 65536, 64KiB or 1MiB,", parseSize))),
		kong.TypeMapper(reflect.TypeFor[rate](), newMapper(s, parseRate)),
	)
}

// helpOf adds to a flag's help the environment variable: its name, and never its value.
func helpOf(v *kong.Value) string {
	if v.Flag == nil || v.Name == "help" {
		return v.Help
	}
	return strings.TrimSuffix(v.Help, ".") + " (" + variable(v.Name) + ")."
}

type versionCommand struct{}

func (versionCommand) Run(std streams) error {
	line := fmt.Sprintf("shoal %s %s %s/%s", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return printLine(std.out, line)
}

// buildVersion is the version of the release, or of the module, or "(devel)".
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// printLine prints a command's result. A write error is the command's error.
func printLine(w io.Writer, line string) error {
	if _, err := fmt.Fprintln(w, line); err != nil {
		return fmt.Errorf("cannot print the result: %w", err)
	}
	return nil
}

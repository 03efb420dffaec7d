package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/report"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/runner"
)

type (
	runCommand struct {
		runner.Scenarios
		runner.Common
	}
	sweepCommand struct {
		runner.Sweeps
		runner.Common
	}
	nodesCommand struct {
		runner.Nodes
		runner.Common
	}
)

// Run measures scenarios, and reports.
func (c *runCommand) Run(ctx context.Context, std streams) error {
	return measure(ctx, std, c.Common, &c.Scenarios)
}

// Run measures sweeps, and reports.
func (c *sweepCommand) Run(ctx context.Context, std streams) error {
	return measure(ctx, std, c.Common, &c.Sweeps)
}

// Run measures S9, and reports.
func (c *nodesCommand) Run(ctx context.Context, std streams) error {
	return measure(ctx, std, c.Common, &c.Nodes)
}

// measure measures what flags describe, writes the results into a folder and reports them.
func measure(ctx context.Context, std streams, common runner.Common, flags runner.Flags) (err error) {
	c := runner.Config{Common: common, Flags: flags, Progress: std.err}
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

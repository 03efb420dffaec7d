package main

import (
	"context"
	"fmt"
	"os"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/report"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
)

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
	charts := ""
	if c.Charts {
		charts = folder
	}
	if c.Readme == "" {
		return reportOn(std, folder, c.ID, charts)
	}
	records, err := results.Load(folder)
	if err != nil {
		return err
	}
	data, err := report.Select(records, c.ID)
	if err != nil {
		return err
	}
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

// reportOn prints the tables of one run, or of the newest of each scenario, and draws its charts where a folder
// for them is given.
func reportOn(std streams, folder, run, charts string) error {
	records, err := results.Load(folder)
	if err != nil {
		return err
	}
	data, err := report.Select(records, run)
	if err != nil {
		return err
	}
	if err := data.Markdown(std.out); err != nil {
		return err
	}
	if charts == "" {
		return nil
	}
	names, err := data.Charts(charts)
	for _, name := range names {
		fmt.Fprintf(std.err, "drew %s\n", name)
	}
	return err
}

package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/internal/plot"
)

// Markdown writes the tables: target against measured, then each scenario's figures, then failures and where
// all this comes from.
func (d Data) Markdown(w io.Writer) error {
	var b strings.Builder
	d.targetTable(&b)
	for _, v := range d.variants() {
		d.scenarioTable(&b, v)
	}
	for _, s := range sweeps {
		d.sweepTable(&b, s)
	}
	d.failures(&b)
	d.provenance(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (d Data) targetTable(b *strings.Builder) {
	all := d.verdicts()
	if !slices.ContainsFunc(all, verdict.known) {
		return
	}
	b.WriteString("## Targets\n\nRatios are made repetition by repetition: median (least to most).\n\n" +
		"| | target | at | measured | met |\n| --- | --- | --- | --- | --- |\n")
	for _, v := range all {
		bound := "at most "
		if v.least {
			bound = "at least "
		}
		measured, met := "–", "not measured"
		if v.known() {
			measured = v.measured.Text(plot.Short)
			met = map[bool]string{true: "yes", false: "**no**"}[v.met()]
		}
		fmt.Fprintf(b, "| %s | %s | %s%s | %s | %s |\n", v.scenario, v.describe(), bound, plot.Short(v.bound), measured, met)
	}
}

// row writes a row of a table.
func row(b *strings.Builder, cells ...string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }

// header writes the head of a table, whose columns come after the first ones.
func header(b *strings.Builder, columns []column, first ...string) {
	for _, c := range columns {
		first = append(first, c.title)
	}
	row(b, first...)
	fmt.Fprintf(b, "|%s\n", strings.Repeat(" --- |", len(first)))
}

// cells are the figures of a system.
func (d Data) cells(v variant, system string, columns []column, first ...string) []string {
	for _, c := range columns {
		first = append(first, d.spread(v, system, c.metric).Text(c.write))
	}
	return first
}

func (d Data) scenarioTable(b *strings.Builder, v variant) {
	shown, known := views[v.scenario]
	if !known {
		return // of a sweep, or of a scenario that is unknown to this version
	}
	fmt.Fprintf(b, "\n## %s\n\n", v.title())
	header(b, shown.columns, "system")
	for _, system := range distinct(d.of(v), systemOf) {
		row(b, d.cells(v, system, shown.columns, system)...)
	}
	if limit := shown.limit(d, v); limit != "" {
		fmt.Fprintf(b, "\nLimit of the machine: %s.\n", limit)
	}
}

// title describes the measurement of a variant.
func (v variant) title() string {
	title := fill(views[v.scenario].title, v.params)
	if v.params.TLS {
		title += ", over TLS 1.3"
	}
	return title
}

// sweepTable writes the measurements at each value.
func (d Data) sweepTable(b *strings.Builder, s sweep) {
	type measured struct {
		variant
		system string
	}
	rows := distinct(d.swept(s), func(r results.Record) measured { return measured{variantOf(r), r.System} })
	if len(rows) == 0 {
		return
	}
	slices.SortStableFunc(rows, func(a, b measured) int {
		return cmp.Or(cmp.Compare(s.label(a.system, a.params), s.label(b.system, b.params)), cmp.Compare(s.of(a.params), s.of(b.params)))
	})
	fmt.Fprintf(b, "\n## Sweep %s: %s\n\n", s.name, s.title)
	header(b, s.columns, "", s.along)
	for _, r := range rows {
		row(b, d.cells(r.variant, r.system, s.columns, s.label(r.system, r.params), s.write(s.of(r.params)))...)
	}
}

func (d Data) failures(b *strings.Builder) {
	title := "\n## Failed\n\n"
	for _, r := range d.records {
		if r.Error != "" {
			fmt.Fprintf(b, "%s- %s, %s, repetition %d: %s\n", title, r.Scenario, r.System, r.Repeat,
				strings.Join(strings.Fields(r.Error), " "))
			title = ""
		}
	}
}

func (d Data) provenance(b *strings.Builder) {
	b.WriteString("\n## Where this comes from\n\n")
	origins := distinct(d.records, func(r results.Record) string {
		p := r.Provenance
		dirty := ""
		if p.Dirty {
			dirty = ", with uncommitted changes"
		}
		return fmt.Sprintf("- run %s: commit %.12s%s; %s, %d cores, GOMAXPROCS %d; %s %s, %s; `%s`\n", r.Run, p.Commit,
			dirty, p.CPU, p.Cores, p.GOMAXPROCS, p.OS, p.Kernel, p.Go, strings.Join(p.Command, " "))
	})
	versions := distinct(d.records, func(r results.Record) string {
		return fmt.Sprintf("- %s: %s %s\n", r.System, r.Provenance.Module, r.Provenance.Version)
	})
	b.WriteString(strings.Join(append(origins, versions...), ""))
}

// The marks around a part of a document that Fill writes: the first names the part.
const (
	beginMark = "<!-- compare "
	endMark   = "<!-- /compare -->"
)

// Fill returns a Markdown document with the tables between its marks replaced. A part is named targets, by a scenario
// (S1; with tls behind it: over TLS) or provenance. A part without results stays as it is. The error names an unknown
// part, or a mark without an end.
func (d Data) Fill(document string) (string, error) {
	var b strings.Builder
	for {
		at := strings.Index(document, beginMark)
		if at < 0 {
			b.WriteString(document)
			return b.String(), nil
		}
		name, rest, ok := strings.Cut(document[at+len(beginMark):], " -->\n")
		old, after, ended := strings.Cut(rest, endMark)
		if !ok || !ended {
			return "", fmt.Errorf("report: the part %.40q has no end %s", name, endMark)
		}
		text, err := d.part(name)
		if err != nil {
			return "", err
		}
		if text == "" {
			text = old
		}
		b.WriteString(document[:at] + beginMark + name + " -->\n" + text + endMark)
		document = after
	}
}

// part returns the tables of a part, one heading level below that of a report.
func (d Data) part(name string) (string, error) {
	var b strings.Builder
	switch name {
	case "targets":
		d.targetTable(&b)
	case "provenance":
		d.provenance(&b)
	default:
		scenario, _, tls := strings.Cut(name, " tls")
		if _, ok := views[scenario]; !ok {
			return "", fmt.Errorf("report: the part is %q, want targets, provenance, or a scenario such as S1 or S1 tls", name)
		}
		for _, v := range d.variants() {
			if v.scenario == scenario && v.params.TLS == tls {
				d.scenarioTable(&b, v)
			}
		}
	}
	text := strings.TrimPrefix(b.String(), "## Targets\n")
	text = strings.TrimPrefix(text, "\n## Where this comes from\n")
	return strings.ReplaceAll(text, "\n## ", "\n### "), nil
}

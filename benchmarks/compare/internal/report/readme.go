package report

import (
	"fmt"
	"strings"
)

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

package main

import (
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// benchReport is the file that the percentiles are drawn into, or nothing if none was asked for.
type benchReport struct {
	file *os.File
	// created: there was no such file before, and nothing is written to it yet.
	created bool
}

// openReport opens the file before the run, which would be for nothing if it could not be written.
func openReport(path string) (*benchReport, error) {
	if path == "" {
		return &benchReport{}, nil
	}
	open := func(flag int) (*os.File, error) {
		return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flag, 0o644) //nolint:gosec // it is named by the user, and no secret
	}
	file, err := open(os.O_EXCL)
	created := err == nil
	if errors.Is(err, fs.ErrExist) {
		file, err = open(0)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot write the report: %w; choose another file with --report", err)
	}
	return &benchReport{file, created}, nil
}

// close closes the file, and removes one that a failed run would leave empty.
func (b *benchReport) close() {
	if b.file == nil {
		return
	}
	_ = b.file.Close() // write has reported the error
	if b.created {
		_ = os.Remove(b.file.Name())
	}
}

// write replaces the contents of the file, if the run has measured anything.
func (b *benchReport) write(r *benchResult) error {
	if b.file == nil || r.Messages.times == nil {
		return nil
	}
	var text strings.Builder
	picture := latencyPlot(r.Messages.times, r.Load.String())
	if filepath.Ext(b.file.Name()) == ".svg" {
		text.WriteString(picture)
	} else {
		trusted := template.HTML(picture) //nolint:gosec // its texts are escaped
		if err := reportPage.Execute(&text, reportData{r, r.rows(), r.notes(), trusted}); err != nil {
			return fmt.Errorf("cannot make the report: %w", err)
		}
	}
	b.created = false
	err := b.file.Truncate(0)
	if err == nil {
		_, err = io.WriteString(b.file, text.String())
	}
	if err == nil {
		err = b.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return nil
}

type reportData struct {
	Result  *benchResult
	Rows    []benchRow
	Notes   []string
	Picture template.HTML
}

// Name and Text are for the page.
func (r benchRow) Name() string { return r.name }

// Text is the text of the row.
func (r benchRow) Text() string { return r.text }

var reportPage = template.Must(template.New("report").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>shoal bench</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
svg { width: 100%; height: auto }
th { text-align: left; padding-right: 1.5rem; font-weight: 600; vertical-align: top }
footer { opacity: .7; font-size: .875rem }
</style>
</head>
<body>
<h1>shoal bench</h1>
{{.Picture}}
<table>
{{- range .Rows}}
<tr><th scope="row">{{.Name}}</th><td>{{.Text}}</td></tr>
{{- end}}
</table>
{{- range .Notes}}
<p><strong>Note:</strong> {{.}}</p>
{{- end}}
{{with .Result -}}
<footer>{{.URL}}, {{.Started.Format "2006-01-02 15:04:05 MST"}};
shoal {{.Version}}, {{.Go}}, {{.Platform}}, processors: {{.CPUs}}</footer>
{{- end}}
</body>
</html>
`))

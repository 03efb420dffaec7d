//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// asPattern returns the regular expression of an output in which … stands for any text within a line.
func asPattern(text string) string {
	return "^" + strings.ReplaceAll(regexp.QuoteMeta(text), "…", ".*") + "$"
}

// The commands and the program of the page print the output that stands below them.
func TestDocs_ClientsPageIsTrue(t *testing.T) {
	s := serveDev(t)
	folder := t.TempDir()
	sh := newDocsShell(t, s)
	var program []string
	output, ran := "", false
	for _, f := range readFences(t, "docs/clients.md") {
		switch f.language {
		case "sh":
			output, ran = sh.run(f), true
		case "go":
			path := filepath.Join(folder, fmt.Sprintf("part%d.go", len(program)))
			source := strings.ReplaceAll(f.text, "http://127.0.0.1:8080", s.url)
			if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
				t.Fatal(err)
			}
			program = append(program, path)
		case "text":
			if len(program) > 0 {
				output, ran = runProgram(t, program), true
				program = nil
			}
			if !ran {
				continue // a picture of the screen
			}
			if !regexp.MustCompile(asPattern(f.text)).MatchString(output) {
				t.Errorf("line %d: printed\n%swant\n%s", f.line, output, f.text)
			}
			ran = false
		}
	}
	if ran || len(program) > 0 {
		t.Error("an output is missing at the end of the page")
	}
}

// runProgram compiles and runs a program with the packages of this repository, and returns its output.
func runProgram(t *testing.T, files []string) string {
	t.Helper()
	command := exec.Command("go", append([]string{"run"}, files...)...)
	command.Dir = "../.."
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

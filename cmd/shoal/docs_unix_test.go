//go:build unix

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// fence is a fenced block of a page: its language, its text and its place.
type fence struct {
	language, text string
	line           int
}

var fences = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

// readFences returns the blocks of a page of docs.
func readFences(t *testing.T, page string) (all []fence) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range fences.FindAllSubmatchIndex(text, -1) {
		all = append(all, fence{
			language: string(text[at[2]:at[3]]), text: string(text[at[4]:at[5]]), line: bytes.Count(text[:at[0]], []byte("\n")) + 1,
		})
	}
	return all
}

// asPattern returns the regular expression of an output in which … stands for any text within a line.
func asPattern(text string) string {
	return "^" + strings.ReplaceAll(regexp.QuoteMeta(text), "…", ".*") + "$"
}

// The commands and the program of the page print the output that stands below them.
func TestDocs_ClientsPageIsTrue(t *testing.T) {
	s := serveDev(t)
	folder := t.TempDir()
	command := fmt.Sprintf("#!/bin/sh\n%s=1 exec %s \"$@\"\n", asCommand, os.Args[0])
	if err := os.WriteFile(filepath.Join(folder, "shoal"), []byte(command), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	var program []string
	output, ran := "", false
	for _, f := range readFences(t, "clients.md") {
		switch f.language {
		case "sh":
			script := exec.Command("bash", "-euo", "pipefail", "-c", f.text)
			script.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"), "SHOAL_URL="+s.url)
			data, err := script.CombinedOutput()
			if err != nil {
				t.Fatalf("line %d: %v\n%s", f.line, err, data)
			}
			output, ran = string(data), true
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

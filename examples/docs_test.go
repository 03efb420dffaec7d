// Package examples has programs that embed Shoal, each with a test that runs it. Its own test compares the page
// docs/embedding.md with them.
package examples

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Each block of Go in docs/embedding.md is a part of the example that the line above it names, so it compiles and is
// run by the test of that example.
func TestDocs_ShowPartsOfTheExamples(t *testing.T) {
	page, err := os.ReadFile("../docs/embedding.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	above := ""
	lines := strings.Split(string(page), "\n")
	for i := 0; i < len(lines); i++ {
		if lines[i] != "```go" {
			if strings.TrimSpace(lines[i]) != "" {
				above = lines[i]
			}
			continue
		}
		blocks++
		var block []string
		for i++; lines[i] != "```"; i++ {
			block = append(block, strings.TrimSpace(lines[i]))
		}
		name := strings.TrimSuffix(strings.TrimPrefix(above, "<!-- "), " -->")
		source, err := os.ReadFile("../" + name)
		if err != nil {
			t.Errorf("the block below %q does not name its file: %v", above, err)
			continue
		}
		if !strings.Contains(trimmed(string(source)), strings.Join(block, "\n")) {
			t.Errorf("the block below %q is not a part of that file:\n%s", above, strings.Join(block, "\n"))
		}
	}
	if blocks == 0 {
		t.Error("the page has no block of Go")
	}
}

// An example with an HTTP server of its own ends in the documented order: event streams over HTTP/2 would hold up
// http.Server.Shutdown until its deadline, and requests that are left publish.
func TestExamples_EndInTheDocumentedOrder(t *testing.T) {
	sources, err := filepath.Glob("*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, name := range append(sources, "../docs/embedding.md") {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(source)) {
			if strings.Contains(line, ".Shutdown(") {
				checked++
				if !strings.Contains(line, "s.Close(closing), web.Shutdown(closing), m.Close(closing)") {
					t.Errorf("%s: %s has another order", name, strings.TrimSpace(line))
				}
			}
		}
	}
	if checked < 2 {
		t.Errorf("%d lines call Shutdown, want those of the examples and of the page", checked)
	}
}

// trimmed returns a text without the white space around its lines.
func trimmed(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}

// Package examples has programs that embed Shoal, each with a test that runs it. Its own test compares the page
// docs/embedding.md with them.
package examples

import (
	"os"
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

// trimmed returns a text without the white space around its lines.
func trimmed(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}

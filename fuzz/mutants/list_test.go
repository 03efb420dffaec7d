package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every fault can be applied to the code as it is.
func TestParse_AcceptsTheList(t *testing.T) {
	text, err := os.ReadFile("mutants.txt")
	if err != nil {
		t.Fatal(err)
	}
	all, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 30 {
		t.Errorf("%d faults are listed, want at least 30", len(all))
	}
	for _, m := range all {
		source, err := os.ReadFile("../../" + m.file)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
		} else if n := strings.Count(string(source), m.search); n != 1 {
			t.Errorf("%s: the text to replace occurs %d times in %s, must occur once", m.name, n, m.file)
		}
		for _, arguments := range m.tests {
			for _, name := range unknownTests(t, arguments) {
				t.Errorf("%s: no test has a name like %q", m.name, name)
			}
		}
	}
}

// unknownTests returns the names in the -run of go test's arguments that no test of the package has.
func unknownTests(t *testing.T, arguments string) (unknown []string) {
	t.Helper()
	words := strings.Fields(arguments)
	run := slices.Index(words, "-run")
	if run < 0 {
		return nil
	}
	folder := words[slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "./") })]
	files, err := filepath.Glob("../../" + folder + "/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files of tests, %v", arguments, len(files), err)
	}
	var sources strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sources.Write(text)
	}
	for _, name := range strings.Split(words[run+1], "|") {
		test := regexp.MustCompile(`(?m)^func (Test|Fuzz)\w*` + regexp.QuoteMeta(name) + `\w*\(`)
		if !test.MatchString(sources.String()) {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

func TestParse_NamesTheProblem(t *testing.T) {
	const entry = "=== a\nfile: f\ntests: ./p\n--- search\nx\n+++ replace\ny\n"
	for text, want := range map[string]string{
		"":                    "lists no fault",
		entry + entry:         "twice",
		"=== a\nfile: f\n":    "no text to replace",
		"=== a\n--- search\n": "no replacement",
		"=== a\ncolour: red\n--- search\nx\n+++ replace\n": "unknown field",
		"=== a\nfile: f\n--- search\nx\n+++ replace\n":     "needs a file, tests",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: the error is %v, want %q", text, err, want)
		}
	}
}

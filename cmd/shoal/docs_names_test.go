package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// foreignFlags are the flags of other programs in the documentation.
var foreignFlags = map[string]string{
	"access": "npm", "no-git-tag-version": "npm", "prefix": "npm",
	"cap-drop": "podman", "read-only": "podman", "security-opt": "podman", "format": "buildah", "rm": "docker", "network": "docker",
	"data-binary": "curl", "fail-with-body": "curl",
	"centrifugo": compare, "measure": compare, "profiles": compare, "rates": compare, "readme": compare, "repeat": compare,
	"scenario": compare, "share": compare, "system": compare, "tls": compare, "warm-up": compare,
}

// compare is a program of this repository, whose flags are fields of structs.
const compare = "benchmarks/compare"

// pages returns the Markdown files of the repository, without those of tests.
func pages(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir(repository, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{"node_modules", ".git", "dist", "bin", "testdata"}, entry.Name()) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			all = append(all, filepath.ToSlash(strings.TrimPrefix(path, filepath.FromSlash(repository))))
		}
		return nil
	})
	if err != nil || len(all) < 30 {
		t.Fatalf("%d pages: %v", len(all), err)
	}
	return all
}

// documentation returns all pages, by their path.
func documentation(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, path := range pages(t) {
		all[path] = read(t, path)
	}
	return all
}

// Every flag in the documentation is one of a command, or of another program that is named here.
func TestDocs_FlagsExist(t *testing.T) {
	parser, err := newParser(newSettings(nil), streams{}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	known := flagNames(parser.Model.Node)
	known["config"], known["help"], known["version"] = true, true, true
	unused := map[string]bool{}
	for flag := range foreignFlags {
		unused[flag] = true
	}
	for path, text := range documentation(t) {
		for _, match := range regexp.MustCompile("(?m)(?:^|[ `(\\[|\"])--([a-z][a-z0-9-]*)").FindAllStringSubmatch(text, -1) {
			delete(unused, match[1])
			if !known[match[1]] && foreignFlags[match[1]] == "" {
				t.Errorf("%s names --%s, which no command has", path, match[1])
			}
		}
	}
	for flag := range unused {
		t.Errorf("no page names --%s of %s", flag, foreignFlags[flag])
	}
	fields := map[string]bool{} // in lower case
	for _, match := range regexp.MustCompile("(?m)^\t([A-Z]\\w*) +\\S.*`").FindAllStringSubmatch(sources(t, compare), -1) {
		fields[strings.ToLower(match[1])] = true
	}
	for flag, program := range foreignFlags {
		if program == compare && !fields[strings.ReplaceAll(flag, "-", "")] {
			t.Errorf("%s has no flag --%s", compare, flag)
		}
	}
}

// foreignVariables are environment variables of tests and scripts.
var foreignVariables = []string{"SHOAL_SEEDS", "SHOAL_STRESS", "SHOAL_UPDATE_DOCS"}

// Every environment variable and every metric that a page names exists.
func TestDocs_VariablesAndMetricsExist(t *testing.T) {
	parser, err := newParser(newSettings(nil), streams{}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"SHOAL_CONFIG": true}
	for flag := range flagNames(parser.Model.Node) {
		known["SHOAL_"+strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))] = true
	}
	metrics := exported(t, serveDev(t))
	suffix := regexp.MustCompile("_(bucket|count|sum)$")
	for path, text := range documentation(t) {
		for _, name := range regexp.MustCompile(`\bSHOAL_[A-Z0-9_]+`).FindAllString(text, -1) {
			if !known[name] && !slices.Contains(foreignVariables, name) {
				t.Errorf("%s names the variable %s, which does not exist", path, name)
			}
		}
		for _, name := range regexp.MustCompile(`\bshoal_[a-z0-9_]+`).FindAllString(text, -1) {
			if metrics[name] == "" && metrics[suffix.ReplaceAllString(name, "")] == "" {
				t.Errorf("%s names the metric %s, which is not exported", path, name)
			}
		}
	}
}

// The values of the labels limit and reason are flags, close reasons of the protocol, or explained.
func TestDocs_LabelsAreExplained(t *testing.T) {
	parser, err := newParser(newSettings(nil), streams{}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	flags := flagNames(parser.Model.Node)
	explained := read(t, "docs/metrics.md") + read(t, "docs/protocol.md")
	_, text := call(t, "GET", serveDev(t).admin+"/metrics", "", "")
	values := regexp.MustCompile(`(?m)^shoal_.*\b(?:limit|reason)="([^"]+)"`).FindAllStringSubmatch(text, -1)
	if len(values) < 20 {
		t.Fatalf("%d values", len(values))
	}
	for _, match := range values {
		if value := match[1]; !flags[strings.ReplaceAll(value, "_", "-")] && !strings.Contains(explained, "`"+value+"`") {
			t.Errorf("docs/metrics.md does not explain %q", value)
		}
	}
}

// foreignTexts are texts in the pages for operators that are not of this repository's sources, and why they are there.
var foreignTexts = map[string]string{
	"certificate loaded":           "internal/reload logs the name that cmd/shoal gives it",
	"certificate is not valid now": "the same",
	"insufficient resources":       "NATS",
	"malformed GOMEMLIMIT":         "the runtime of Go",
	"no space left on device":      "the system",
	"proxy_buffering on":           "nginx",
	"recovered: false":             "a field of a message",
	"systemctl reload shoal":       "a command",
	"too many open files":          "the system",
}

// sources returns the text of all Go files of a folder but the tests.
func sources(t *testing.T, folder string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(repository+folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{"node_modules", ".git", "dist", "testdata"}, entry.Name()) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// linesOf returns the messages of log lines and errors in a source, each on a line of its own.
func linesOf(source string) string {
	var all strings.Builder
	call := regexp.MustCompile(`\b(?:Debug|Info|Warn|Error|Log|logFailure|New|Errorf)\([^"]{0,200}"([^"]*)"`)
	for _, match := range call.FindAllStringSubmatch(source, -1) {
		all.WriteString(match[1] + "\n")
	}
	return all.String()
}

// Every log line that a page for operators quotes is one that the sources write. Lines are quoted as code, in several words
// that begin in lower case; … stands for any text.
func TestDocs_LogLinesExist(t *testing.T) {
	all := linesOf(sources(t, ""))
	quoted := regexp.MustCompile("`([a-z][^`=/]* [^`=/]*)`")
	command := regexp.MustCompile("^(shoal|podman) ")
	for _, path := range []string{"docs/runbook.md", "docs/operating.md", "docs/configuration.md"} {
		found := 0
		for _, match := range quoted.FindAllStringSubmatch(read(t, path), -1) {
			if command.MatchString(match[1]) {
				continue
			}
			found++
			for part := range strings.SplitSeq(match[1], "…") {
				part = strings.TrimSpace(part)
				if foreignTexts[part] == "" && !strings.Contains(all, part) {
					t.Errorf("%s quotes %q, which no log line has", path, match[1])
				}
			}
		}
		if found == 0 {
			t.Errorf("%s quotes no log line", path)
		}
	}
}

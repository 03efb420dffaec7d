package rules

import (
	"fmt"
	"slices"
	"strings"
)

// maxLines is how long a file may grow before it holds more than one idea.
const maxLines = 400

// topLevel lists what may stand at the top of the repository, beside files whose name begins with a dot.
func topLevel() []string {
	return []string{
		"go.mod", "go.sum", "shard", "manager", "server", "benchmarks", "fuzz", "internal", "Makefile", "README.md",
		"cmd", "broker", "client", "examples", "docs", "deploy", "LICENSE", "CHANGELOG.md",
		"go.work", "go.work.sum", "CONTRIBUTING.md", "SECURITY.md",
	}
}

// strangersOnTop complains of names at the top of the repository that do not belong there.
func strangersOnTop(t tree) []string {
	var complaints []string
	for _, name := range t.top {
		if !slices.Contains(topLevel(), name) {
			complaints = append(complaints,
				fmt.Sprintf("%s: must not stand at the top, where only these do: %s", name, strings.Join(topLevel(), " ")))
		}
	}
	return complaints
}

// longFiles complains of shipped files that are too long.
func longFiles(t tree) []string {
	var complaints []string
	for _, f := range t.files {
		if f.lines > maxLines && !f.isTest() && !f.generated() {
			complaints = append(complaints, fmt.Sprintf("%s: has %d lines, more than %d: split it", f.path, f.lines, maxLines))
		}
	}
	return complaints
}

// undocumentedPackages complains of packages that no comment introduces. A comment in a test file counts
// only where there is no other file to hold it.
func undocumentedPackages(t tree) []string {
	shipped := map[string]bool{}
	for _, f := range t.files {
		shipped[f.dir()] = shipped[f.dir()] || !f.isTest()
	}
	var folders []string
	documented := map[string]bool{}
	for _, f := range t.files {
		if !slices.Contains(folders, f.dir()) {
			folders = append(folders, f.dir())
		}
		counts := !f.isTest() || !shipped[f.dir()]
		if counts && strings.TrimSpace(f.syntax.Doc.Text()) != "" {
			documented[f.dir()] = true
		}
	}
	var complaints []string
	for _, folder := range folders {
		if !documented[folder] {
			complaints = append(complaints, folder+": has no package comment: say in its doc.go what it is")
		}
	}
	return complaints
}

package rules

import (
	"fmt"
	"slices"
	"strings"
)

// maxLines is the largest number of lines of a file that is not a test.
const maxLines = 400

// topLevel lists the names allowed at the top of the repository, apart from names that begin with a dot.
func topLevel() []string {
	return []string{
		"go.mod", "go.sum", "shard", "manager", "server", "benchmarks", "fuzz", "internal", "Makefile", "README.md",
		"cmd", "broker", "client", "examples", "docs", "deploy", "LICENSE", "CHANGELOG.md",
		"go.work", "go.work.sum", "CONTRIBUTING.md", "SECURITY.md",
	}
}

// unexpectedTopLevel reports names at the top of the repository that are not in topLevel.
func unexpectedTopLevel(t tree) []string {
	var violations []string
	for _, name := range t.top {
		if !slices.Contains(topLevel(), name) {
			violations = append(violations,
				fmt.Sprintf("%s: not allowed at the top level, which contains only: %s", name, strings.Join(topLevel(), " ")))
		}
	}
	return violations
}

// longFiles reports files with more than maxLines lines. Tests and generated files are exempt.
func longFiles(t tree) []string {
	var violations []string
	for _, f := range t.files {
		if f.lines > maxLines && !f.isTest() && !f.generated() {
			violations = append(violations, fmt.Sprintf("%s: has %d lines, more than %d: split it", f.path, f.lines, maxLines))
		}
	}
	return violations
}

// undocumentedPackages reports packages without a package comment. A comment in a test file counts only if the package
// has no other files.
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
	var violations []string
	for _, folder := range folders {
		if !documented[folder] {
			violations = append(violations, folder+": has no package comment: add one in doc.go")
		}
	}
	return violations
}

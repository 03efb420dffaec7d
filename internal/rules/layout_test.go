package rules

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of files that are not tests: the number of lines, and the columns of a line, where a tab counts as one.
const (
	maxLines   = 400
	maxColumns = 120
)

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

// longLines reports lines with more than maxColumns columns. Tests and generated files are exempt, and the tags of a
// struct's field, which cannot be broken.
func longLines(t tree) []string {
	var violations []string
	for _, f := range t.files {
		if f.isTest() || f.generated() || contains("benchmarks/compare", f.path) || contains("internal/plot", f.path) {
			continue
		}
		tags := f.tagLines()
		number := 0
		for line := range strings.Lines(f.source) {
			number++
			columns := utf8.RuneCountInString(strings.TrimRight(line, "\r\n"))
			if columns > maxColumns && !tags[number] {
				violations = append(violations,
					fmt.Sprintf("%s:%d: has %d columns, more than %d", f.path, number, columns, maxColumns))
			}
		}
	}
	return violations
}

// tagLines returns the numbers of the lines with the tags of fields.
func (f file) tagLines() map[int]bool {
	lines := map[int]bool{}
	ast.Inspect(f.syntax, func(node ast.Node) bool {
		if field, ok := node.(*ast.Field); ok && field.Tag != nil {
			lines[f.line(field.Tag.Pos())] = true
		}
		return true
	})
	return lines
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

// tree is a parsed repository: the names at its top level, all Go files and all pages in Markdown. It is immutable once
// loaded.
type tree struct {
	root  fs.FS
	top   []string
	files []file
	pages []page
}

// file is one Go file, parsed.
type file struct {
	path   string // from the root, with slashes
	lines  int
	source string
	syntax *ast.File
}

func (f file) dir() string     { return path.Dir(f.path) }
func (f file) isTest() bool    { return strings.HasSuffix(f.path, "_test.go") }
func (f file) generated() bool { return ast.IsGenerated(f.syntax) }

// line returns the number of the line of a position.
func (f file) line(pos token.Pos) int {
	return 1 + strings.Count(f.source[:pos-f.syntax.FileStart], "\n")
}

// load reads a repository. It ignores the folders that the go command ignores, and the output of package managers and
// builds. Nested modules are included.
func load(root fs.FS) (tree, error) {
	t := tree{root: root}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if ignored(name) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if path.Dir(name) == "." {
			t.top = append(t.top, name)
		}
		if !entry.IsDir() && path.Ext(name) == ".md" {
			text, err := fs.ReadFile(root, name)
			t.pages = append(t.pages, page{path: name, text: string(text)})
			return err
		}
		if entry.IsDir() || path.Ext(name) != ".go" {
			return nil
		}
		f, err := parse(root, name)
		t.files = append(t.files, f)
		return err
	})
	return t, err
}

// ignored reports whether the file or folder is not part of the repository's sources.
func ignored(name string) bool {
	switch name {
	case "bin", "dist":
		return true
	}
	switch path.Ext(name) {
	case ".test", ".out", ".prof":
		return true
	}
	base := path.Base(name)
	return base == "testdata" || base == "node_modules" || base[0] == '.' || base[0] == '_'
}

func parse(root fs.FS, name string) (file, error) {
	source, err := fs.ReadFile(root, name)
	if err != nil {
		return file{}, err
	}
	syntax, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments)
	return file{path: name, lines: bytes.Count(source, []byte("\n")), source: string(source), syntax: syntax}, err
}

// imports lists the paths of the packages that the file imports.
func (f file) imports() []string {
	var paths []string
	for _, spec := range f.syntax.Imports {
		// The parser has verified that this is a string literal.
		imported, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, imported)
	}
	return paths
}

// calls reports whether the call is one of function name of the package with that import path, under any local
// name.
func (f file) calls(call *ast.CallExpr, imported, name string) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != name {
		return false
	}
	qualifier, ok := selector.X.(*ast.Ident)
	// A qualifier declared in the file is a variable that shadows the package.
	return ok && qualifier.Obj == nil && qualifier.Name == f.localName(imported)
}

// localName returns the name under which the file imports the package, or "".
func (f file) localName(imported string) string {
	for i, candidate := range f.imports() {
		if candidate != imported {
			continue
		}
		if name := f.syntax.Imports[i].Name; name != nil {
			return name.Name
		}
		return path.Base(imported)
	}
	return ""
}

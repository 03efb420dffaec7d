// Command typecheck reports type errors of packages and their tests for other operating systems:
//
//	go run ./internal/typecheck -os darwin,windows ./...
//
// It parses and type-checks all packages from source, those of dependencies without the bodies of functions, and
// generates no code. "GOOS=windows go vet" finds the same errors, but first compiles every dependency of every test.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// mode makes packages.Load check types from source: without NeedDeps it would ask for compiled packages.
const mode = packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports |
	packages.NeedDeps | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo

func main() {
	systems := flag.String("os", "", "values of GOOS, separated by commas")
	flag.Parse()
	// Nearly all that is read stays in use until the end, so that collections find little: they took half of the time.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(3 << 30)
	failed := false
	for system := range strings.SplitSeq(*systems, ",") {
		if err := check(os.Stderr, ".", system, flag.Args()...); err != nil {
			fmt.Fprintf(os.Stderr, "typecheck: GOOS=%s: %v\n", system, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

// check writes the errors of the packages that match patterns, tests included, one a line. It returns an error if it
// found any, or no package at all.
func check(w io.Writer, folder, system string, patterns ...string) error {
	loaded, err := packages.Load(&packages.Config{
		Mode:  mode,
		Dir:   folder,
		Env:   append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0"),
		Tests: true,
	}, patterns...)
	if err != nil {
		return err
	}
	if len(loaded) == 0 {
		return errors.New("no packages match")
	}
	var found []string
	for _, pkg := range loaded {
		for _, e := range pkg.Errors {
			found = append(found, e.Error())
		}
	}
	// A package with tests is checked twice, with and without them.
	slices.Sort(found)
	found = slices.Compact(found)
	for _, line := range found {
		fmt.Fprintln(w, line)
	}
	if len(found) > 0 {
		return fmt.Errorf("errors: %d", len(found))
	}
	return nil
}

// Command deploylint checks a file of deploy with the parser and the linter of the program that will read it.
//
//	deploylint dockerfile FILE
//	deploylint compose FILE
//	deploylint envoy FILE
//	deploylint chart FOLDER VALUES...    renders the chart with each file of values
//
// It prints one problem a line and ends with status 1 if there are any. It is a module of its own and not a part of
// go.work, because these programs depend on hundreds of modules: .ci/deploylint.sh builds it once.
package main

import (
	"context"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: deploylint dockerfile|compose|envoy|chart PATH [VALUES...]")
		os.Exit(2)
	}
	problems, err := lint(context.Background(), os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		problems = append(problems, err.Error())
	}
	for _, problem := range problems {
		fmt.Printf("%s: %s\n", os.Args[2], problem)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

// lint returns the problems of a file; err means that it cannot be read at all.
func lint(ctx context.Context, kind, path string, values []string) (problems []string, err error) {
	switch kind {
	case "dockerfile":
		return lintDockerfile(ctx, path)
	case "compose":
		return lintCompose(ctx, path)
	case "envoy":
		return lintEnvoy(path)
	case "chart":
		return lintChart(path, values)
	}
	return nil, fmt.Errorf("unknown kind of file %q", kind)
}

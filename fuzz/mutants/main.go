// Command mutants measures the tests: it applies the deliberate faults of mutants.txt one by one to a copy of the
// repository and expects the named tests to find each of them.
//
// A fault that keeps the tests from ending is shown as "hangs"; run it alone to tell it from a busy machine.
//
// An entry of the list has a name, a file, the text to replace, the replacement, and one or more sets of arguments for
// go test. "survives:" marks a fault that no test can find, and gives the reason. The text must occur exactly once in
// its file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	list := flag.String("list", "fuzz/mutants/mutants.txt", "file with the faults")
	run := flag.String("run", "", "regular expression for the names of the faults to apply")
	limit := flag.Duration("timeout", 3*time.Minute, "time for the tests of one fault")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := work(ctx, *list, *run, *limit); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// work applies the selected faults and prints a table of the results. The error names the faults that were not found.
func work(ctx context.Context, list, run string, limit time.Duration) error {
	selected, err := regexp.Compile(run)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	text, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	all, err := parse(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	folder, err := copyRepository(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	var problems []error
	passed := map[string]bool{}
	for _, m := range all {
		if !selected.MatchString(m.name) {
			continue
		}
		start := time.Now()
		result, err := m.try(ctx, folder, limit, passed)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			problems, result = append(problems, fmt.Errorf("%s: %w", m.name, err)), "PROBLEM"
		}
		fmt.Printf("%-10s %4.0f s  %s\n", result, time.Since(start).Seconds(), m.name)
	}
	return errors.Join(problems...)
}

// try applies a fault, runs its tests and takes the fault back. passed holds the tests that are known to pass without
// any fault.
func (m mutant) try(ctx context.Context, folder string, limit time.Duration, passed map[string]bool) (string, error) {
	for _, args := range m.tests {
		if passed[args] {
			continue
		}
		if found, output := failing(ctx, folder, args, limit); found {
			return "", fmt.Errorf("go test %s fails without the fault:\n%s", args, output)
		}
		passed[args] = true
	}
	path := filepath.Join(folder, m.file)
	original, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(original), m.search); n != 1 {
		return "", fmt.Errorf("the text to replace occurs %d times in %s, must occur once", n, m.file)
	}
	changed := strings.Replace(string(original), m.search, m.replace, 1)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		return "", err
	}
	defer func() { _ = os.WriteFile(path, original, 0o600) }()
	for _, args := range m.tests {
		found, output := failing(ctx, folder, args, limit)
		if found && strings.Contains(output, "[build failed]") {
			return "", fmt.Errorf("the fault does not compile:\n%s", output)
		}
		if found && m.survives != "" {
			return "", errors.New("is listed as a survivor, but was found")
		}
		if found && strings.Contains(output, "panic: test timed out after") {
			return "hangs", nil
		}
		if found {
			return "found", nil
		}
	}
	if m.survives != "" {
		return "survives", nil
	}
	return "", fmt.Errorf("was not found by go test %s", strings.Join(m.tests, ", nor by go test "))
}

// failing reports whether go test fails with these arguments, or does not end in time.
func failing(ctx context.Context, folder, args string, limit time.Duration) (fails bool, output string) {
	arguments := append([]string{"test", "-count=1", "-timeout=" + limit.String()}, strings.Fields(args)...)
	command := exec.CommandContext(ctx, "go", arguments...)
	command.Dir = folder
	command.Env = append(os.Environ(), "SHOAL_STRESS=2s", "SHOAL_SEEDS=5000")
	text, err := command.CombinedOutput()
	return err != nil, string(text)
}

// copyRepository copies the files of the repository that contains the working directory, committed or not.
func copyRepository(ctx context.Context) (folder string, err error) {
	names, err := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return "", fmt.Errorf("git ls-files: %w", err)
	}
	if folder, err = os.MkdirTemp("", "shoal-mutants"); err != nil {
		return "", err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		if err := copyFile(filepath.Join(folder, name), name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return folder, err
		}
	}
	return folder, nil
}

func copyFile(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// asCommand makes the test binary be the command itself, for tests that need a process of its own.
const asCommand = "SHOAL_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// goodSecret is a JWT secret that passes outside development.
const goodSecret = "0123456789abcdef0123456789abcdef"

// result is the status and the output of a command.
type result struct {
	status   int
	out, err string
}

// shoal runs a command. env are NAME=value.
func shoal(t *testing.T, env []string, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	status := run(t.Context(), args, env, strings.NewReader(stdin), &out, &errs)
	return result{status, out.String(), errs.String()}
}

// wantDone checks that a command has succeeded without an error message.
func (r result) wantDone(t *testing.T) {
	t.Helper()
	if r.status != statusDone || r.err != "" {
		t.Fatalf("status = %d, errors:\n%s", r.status, r.err)
	}
}

// wantErrors checks a command's status and its complaints: one line for each of want, which holds it.
func (r result) wantErrors(t *testing.T, status int, want ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
	if r.status != status || len(lines) != len(want) {
		t.Fatalf("status = %d, want %d with %d lines:\n%s", r.status, status, len(want), r.err)
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, "shoal: ") || !strings.Contains(line, want[i]) {
			t.Errorf("line %d is\n%s\nwant in it\n%s", i+1, line, want[i])
		}
	}
	if r.out != "" {
		t.Errorf("standard output: %q", r.out)
	}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

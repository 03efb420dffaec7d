package worker

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asChild is the variable that makes this program behave as a process that is called.
const asChild = "COMPARE_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		if Serve(os.Stdin, os.Stdout, Test{}) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// Test is the service of a process.
type Test struct{}

func (Test) Close() error { return nil }

func (Test) Echo(text string, answer *string) error { *answer = text; return nil }

func (Test) Refuse(None, *None) error { return errors.New("refused on purpose") }

func (Test) Die(None, *None) error {
	_, _ = os.Stderr.WriteString("dying on purpose\n")
	os.Exit(3)
	return nil
}

// Hang takes longer than any test.
func (Test) Hang(None, *None) error { <-time.After(time.Hour); return nil }

func start(t *testing.T) *Child {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program)
	command.Env = append(os.Environ(), asChild+"=1")
	c, err := Start("it", command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c
}

func TestBegin_Answers(t *testing.T) {
	c := start(t)
	for _, text := range []string{"one", "two"} {
		if got, err := Begin[string](t.Context(), c, "Test.Echo", text)(); err != nil || got != text {
			t.Errorf("the answer to %s is %q, %v", text, got, err)
		}
	}
	if _, err := Begin[None](t.Context(), c, "Test.Refuse", None{})(); err == nil || !strings.Contains(err.Error(), "it: refused on purpose") {
		t.Errorf("the error is %v", err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}
}

func TestBegin_ExplainsDeath(t *testing.T) {
	c := start(t)
	_, err := Begin[None](t.Context(), c, "Test.Die", None{})()
	if err == nil || !strings.Contains(err.Error(), "dying on purpose") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("the error is %v", err)
	}
	if _, err := Begin[string](t.Context(), c, "Test.Echo", "again")(); err == nil {
		t.Error("a process that has ended answers")
	}
	if err := c.Close(); err == nil {
		t.Error("closing does not tell that it ended badly")
	}
}

func TestBegin_EndsWithContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Begin[None](ctx, start(t), "Test.Hang", None{})(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
}

func TestStart_NamesMissingProgram(t *testing.T) {
	if _, err := Start("it", exec.Command("/nonexistent/program")); err == nil || !strings.Contains(err.Error(), "/nonexistent/program") {
		t.Errorf("the error is %v", err)
	}
}

func TestHead_IsBounded(t *testing.T) {
	h := &head{}
	for range 10 {
		if n, err := h.Write(bytes.Repeat([]byte("x"), headBytes)); n != headBytes || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if len(h.String()) != headBytes {
		t.Errorf("%d bytes are kept", len(h.String()))
	}
}

func TestProcess_UsageGrows(t *testing.T) {
	const size = 64 << 20
	p, before, after := &Process{}, Usage{}, Usage{}
	_ = p.Usage(Measured{Clean: true}, &before)
	heap := Heap()
	held := bytes.Repeat([]byte("x"), size)
	if grown := Heap() - heap; grown < size*3/4 || grown > size*5/4 {
		t.Errorf("the heap has grown by %d, want about %d", grown, size)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for range 10 {
		_, _ = file.WriteString("x")
	}
	_ = p.Usage(Measured{}, &after)
	if after.Resident-before.Resident < size*3/4 || after.CPU <= before.CPU || after.Writes-before.Writes < 10 {
		t.Errorf("the usage went from %+v to %+v", before, after)
	}
	runtime.KeepAlive(held)
	if UsageOf(-1) != (Usage{}) || Slab() == 0 {
		t.Errorf("of no process the usage is %+v; the kernel's objects have %d bytes", UsageOf(-1), Slab())
	}
}

func TestProcess_Profile(t *testing.T) {
	p := &Process{}
	if err := p.Profile("/nonexistent/folder/profile", nil); err == nil {
		t.Error("a profile is written into no folder")
	}
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	if err := errors.Join(p.Profile(file, nil), p.Close()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Errorf("the profile is %v, %v", info, err)
	}
}

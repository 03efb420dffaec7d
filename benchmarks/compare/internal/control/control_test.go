package control

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

type question struct {
	Do string `json:"do"`
}

type reply struct {
	Said string `json:"said"`
}

// asChild is the variable that makes this program behave as a controlled process.
const asChild = "COMPARE_TEST_CHILD"

// child answers until it is asked to die, to hang or to quit.
func child() int {
	_ = Reply(os.Stdout, reply{"ready"}, nil)
	err := Serve(os.Stdin, os.Stdout, func(q question) (reply, bool, error) {
		switch q.Do {
		case "die":
			_, _ = os.Stderr.WriteString("out of sorts\n")
			os.Exit(3)
		case "hang":
			// Longer than any test. Without a timer the runtime would notice that nothing can happen any more.
			<-time.After(time.Hour)
		case "refuse":
			return reply{}, false, errors.New("that cannot be")
		}
		return reply{q.Do}, q.Do == "quit", nil
	})
	if err != nil {
		return 1
	}
	return 0
}

func startChild(t *testing.T) *Child[question, reply] {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program)
	command.Env = append(os.Environ(), asChild+"=1")
	c, ready, err := Start[question, reply](t.Context(), "it", command)
	if err != nil || ready.Said != "ready" {
		t.Fatalf("it started with %+v, %v", ready, err)
	}
	t.Cleanup(c.Kill)
	return c
}

func TestCallIsAnswered(t *testing.T) {
	c := startChild(t)
	for _, what := range []string{"one", "two"} {
		if a, err := c.Call(t.Context(), question{what}); err != nil || a.Said != what {
			t.Errorf("the answer to %s is %+v, %v", what, a, err)
		}
	}
	if _, err := c.Call(t.Context(), question{"refuse"}); err == nil || !strings.Contains(err.Error(), "that cannot be") {
		t.Errorf("the error is %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestDeathIsExplained(t *testing.T) {
	c := startChild(t)
	_, err := c.Call(t.Context(), question{"die"})
	if err == nil || !strings.Contains(err.Error(), "out of sorts") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("the error is %v", err)
	}
	if _, err := c.Call(t.Context(), question{"again"}); err == nil {
		t.Error("the dead answer")
	}
}

func TestSilenceEndsWithTheContext(t *testing.T) {
	c := startChild(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Call(ctx, question{"hang"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
}

func TestWhatDoesNotStartIsNamed(t *testing.T) {
	_, _, err := Start[question, reply](t.Context(), "it", exec.Command("/nonexistent/program"))
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/program") {
		t.Errorf("the error is %v", err)
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	var out bytes.Buffer
	err := Serve(strings.NewReader("nonsense\n"), &out, func(question) (reply, bool, error) { return reply{}, false, nil })
	if err == nil {
		t.Errorf("nonsense was answered with %s", &out)
	}
}

func TestComplaintsAreBounded(t *testing.T) {
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

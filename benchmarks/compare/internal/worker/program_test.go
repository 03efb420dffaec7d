package worker

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A program runs from when its address listens until it is ended. Listening is up to the test here.
func TestStartProgram_EndsProgram(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	command := exec.Command("sleep", "1000")
	end, err := StartProgram(command, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := end(); err != nil || command.ProcessState == nil {
		t.Errorf("it ended with %v, %v", command.ProcessState, err)
	}
	const missing = "/nonexistent/program"
	if _, err := StartProgram(exec.Command(missing), ""); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("the error is %v", err)
	}
}

func TestFreeAddress_IsFree(t *testing.T) {
	addr, err := FreeAddress("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		_ = conn.Close()
		t.Errorf("something listens at %s", addr)
	}
}

func TestPoll_EndsWithConditionOrContext(t *testing.T) {
	calls := 0
	if err := Poll(t.Context(), func() bool { calls++; return calls == 3 }); err != nil || calls != 3 {
		t.Errorf("%d calls, %v", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := Poll(ctx, func() bool { cancel(); return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

// Calls are planned at equal distances, none is made early, and an error ends them.
func TestPace_KeepsPlannedTimes(t *testing.T) {
	var all []time.Time
	start, err := Pace(1000, 5, func(i int, planned time.Time) error {
		if i != len(all) || time.Now().Before(planned.Add(-time.Millisecond)) {
			t.Errorf("call %d, planned for %v, is made at %v", i, planned, time.Now())
		}
		all = append(all, planned)
		return nil
	})
	if err != nil || len(all) != 5 || !all[0].Equal(start) || all[4].Sub(start) != 4*time.Millisecond {
		t.Errorf("planned are %v from %v, %v", all, start, err)
	}
	broken := errors.New("broken")
	if _, err := Pace(1000, 5, func(int, time.Time) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
}

func TestClosers_CallLatestFirst(t *testing.T) {
	order := ""
	c := Closers{
		func() error { order += "a"; return nil },
		func() error { order += "b"; return errors.New("broken") },
	}
	if err := c.Close(); err == nil || order != "ba" {
		t.Errorf("the order is %s, the error %v", order, err)
	}
}

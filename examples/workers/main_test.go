package main

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/examples/internal/try"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A job reports its progress and its end, and an end of the program waits for jobs.
func TestWorkers(t *testing.T) {
	ln := try.Listen(t)
	stop := try.Run(t, func(ctx context.Context) error { return run(ctx, ln) })
	c := try.Dial(t, ln.Addr().String()+"/ws/uploads", try.As("ann"))
	c.Subscribe("job-1")
	request, err := http.NewRequest(http.MethodPost, "http://"+ln.Addr().String()+"/jobs/job-1",
		strings.NewReader(strings.Repeat("x", 1<<20)))
	if status := try.Do(t, request, err); status != http.StatusAccepted {
		t.Errorf("accepting: %d", status)
	}
	c.Want("upload_progress")
	if m := c.Want("upload_completed"); !strings.HasPrefix(m["description"].(string), "sha256 ") {
		t.Errorf("received %v", m)
	}
	go stop()
	c.WantClose(1012)
}

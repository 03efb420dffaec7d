package manager

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// TestReporter_EachStepReturnsItsError: a step whose message was not published says so, and the next one goes on.
func TestReporter_EachStepReturnsItsError(t *testing.T) {
	p := &published{err: errors.New("broken")}
	r := newReporter(t.Context(), p.publish, "u")
	for name, err := range map[string]error{
		"Stage": r.Stage(StatusAnalyzing, StageIndexing, 100, ""), "Bytes": r.Bytes(50, 100), "Fail": r.Fail("failed"),
	} {
		if !errors.Is(err, p.err) {
			t.Errorf("%s returned %v, want %v", name, err, p.err)
		}
	}
	p.err = nil
	must(t, r.Bytes(60, 100))
	must(t, r.Bytes(60, 100)) // nothing to publish
	must(t, r.Stage(StatusAnalyzing, StageIndexing, 100, ""))
	wantPercents(t, p, 60, 100)
}

// TestReporter_EndsWithItsContext: no step blocks longer than the context of the task, and after its end none publishes.
func TestReporter_EndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := newReporter(ctx, func(ctx context.Context, _ string, _ Message) (Position, error) {
			<-ctx.Done() // a broker that does not answer
			return Position{}, ctx.Err()
		}, "u")
		begin := time.Now()
		for _, step := range []func() error{
			func() error { return r.Stage(StatusAnalyzing, StageIndexing, 100, "") },
			func() error { return r.Bytes(1, 2) },
			func() error { return r.Complete("", 1) },
			func() error { return r.Fail("") },
		} {
			if err := step(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("returned %v, want the error of the context", err)
			}
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("the steps took %v, the context a second", took)
		}
	})
}

// TestReporter_ReaderReportsWhatIsRead: the reader passes data and errors through, and reports each percent.
func TestReporter_ReaderReportsWhatIsRead(t *testing.T) {
	p := &published{}
	r := newReporter(t.Context(), p.publish, "u")
	text := strings.Repeat("x", 200)
	got, err := io.ReadAll(r.Reader(iotest.OneByteReader(strings.NewReader(text)), int64(len(text))))
	if err != nil || string(got) != text {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if all := p.percents(); len(all) != 101 || all[100] != 100 {
		t.Errorf("published %d times, want each percent", len(all))
	}
	broken := errors.New("broken")
	if _, err := io.ReadAll(r.Reader(iotest.ErrReader(broken), 1)); !errors.Is(err, broken) {
		t.Errorf("%v, want the error of the source", err)
	}
}

// TestProgressContext_PublishesUntilItEnds: the manager's reporter publishes to the upload's subscribers.
func TestProgressContext_PublishesUntilItEnds(t *testing.T) {
	m := open(t, Options{})
	c := connect(t, m, "ann")
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	ctx, cancel := context.WithCancel(t.Context())
	r := m.ProgressContext(ctx, "cat")
	must(t, r.Stage(StatusAnalyzing, StageIndexing, 100, ""))
	cancel()
	if err := r.Complete("", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the error of the context", err)
	}
	if got := len(c.received(t)); got != 1 {
		t.Errorf("%d messages came, want 1", got)
	}
}

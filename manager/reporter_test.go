package manager

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// published collects the messages that a reporter publishes, and refuses them with err if that is set.
type published struct {
	messages []Message
	err      error
}

func (p *published) publish(_ context.Context, uploadID string, msg Message) (Position, error) {
	if p.err != nil {
		return Position{}, p.err
	}
	if _, err := msg.encode(&vocabulary{}, uploadID, time.Now()); err != nil {
		return Position{}, err
	}
	p.messages = append(p.messages, msg)
	return Position{Offset: uint64(len(p.messages))}, nil
}

// percents returns the percents of the progress that was published.
func (p *published) percents() []float64 {
	var all []float64
	for _, m := range p.messages {
		if progress, ok := m.(UploadProgress); ok {
			all = append(all, progress.Percent)
		}
	}
	return all
}

func wantPercents(t *testing.T, p *published, want ...float64) {
	t.Helper()
	got := p.percents()
	same := len(got) == len(want)
	for i := 0; same && i < len(want); i++ {
		same = math.Abs(got[i]-want[i]) < 1e-9
	}
	if !same {
		t.Fatalf("published the percents %v, want %v", got, want)
	}
}

func TestReporter_PublishesEachWholePercentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &published{}
		r := newReporter(t.Context(), p.publish, "u")
		const total = 10 << 30
		for done := int64(0); done <= total; done += 1 << 20 { // no time passes: as fast as it can be
			r.Bytes(done, total)
		}
		got := p.percents()
		if len(got) != 101 {
			t.Fatalf("published %d times, want once for each of 0 to 100", len(got))
		}
		for i, percent := range got {
			if math.Floor(percent) != float64(i) {
				t.Fatalf("publication %d is at %v percent", i, percent)
			}
		}
	})
}

func TestReporter_PublishesSmallStepsEvery100ms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &published{}
		r := newReporter(t.Context(), p.publish, "u")
		const total = 1_000_000
		for step := range int64(50) { // 0.1 percent in 10 ms
			r.Bytes(step*10, total)
			<-time.After(10 * time.Millisecond)
		}
		// 0 at once, then the first call at or after each 100 ms, although no whole percent is reached.
		wantPercents(t, p, 0, 0.01, 0.02, 0.03, 0.04)
	})
}

func TestReporter_IsSilentWithoutNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &published{}
		r := newReporter(t.Context(), p.publish, "u")
		r.Bytes(50, 100)
		<-time.After(time.Minute)
		r.Bytes(50, 100) // nothing new
		r.Bytes(20, 100) // goes back
		r.Bytes(70, 0)   // out of an unknown total
		r.Bytes(70, -1)
		wantPercents(t, p, 50)
		r.Bytes(51, 100)
		wantPercents(t, p, 50, 51)
	})
}

func TestReporter_StagesFillTheBar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &published{}
		r := newReporter(t.Context(), p.publish, "u")
		r.Stage(StatusPending, StageQueued, 80, "Receiving")
		r.Bytes(1, 2)
		r.Stage(StatusAnalyzing, StageExtractingFrames, 90, "Reading") // the one before it is done
		r.Bytes(1, 2)
		r.Stage(StatusAnalyzing, StageVisionAnalysis, 85, "Looking") // goes back, so it fills nothing
		r.Bytes(1, 1)
		r.Stage(StatusEmbedding, StageIndexing, math.Inf(1), "Indexing")
		r.Bytes(5, 1) // more than there is
		wantPercents(t, p, 0, 40, 80, 85, 90, 90, 100)

		last := p.messages[len(p.messages)-1].(UploadProgress)
		if last.Status != StatusEmbedding || last.Stage != StageIndexing || last.Message != "Indexing" {
			t.Errorf("published %+v, want what the last stage said", last)
		}
	})
}

func TestReporter_WithoutAStageIsQueued(t *testing.T) {
	p := &published{}
	r := newReporter(t.Context(), p.publish, "u")
	r.Bytes(1, 4)
	want := UploadProgress{Status: StatusPending, Stage: StageQueued, Percent: 25}
	if len(p.messages) != 1 || p.messages[0] != Message(want) {
		t.Errorf("published %+v, want %+v", p.messages, want)
	}
	r.Stage(StatusAnalyzing, StageIndexing, math.NaN(), "") // no percent at all: fills nothing
	r.Stage(StatusAnalyzing, StageIndexing, 100, "")
	wantPercents(t, p, 25, 25, 25)
}

func TestReporter_WriterCountsBytes(t *testing.T) {
	p := &published{}
	r := newReporter(t.Context(), p.publish, "u")
	r.Stage(StatusPending, StageQueued, 50, "")
	w := r.Writer(100)
	for range 4 {
		if n, err := io.Copy(w, strings.NewReader(strings.Repeat("x", 25))); n != 25 || err != nil {
			t.Fatalf("wrote %d bytes, %v", n, err)
		}
	}
	wantPercents(t, p, 0, 12.5, 25, 37.5, 50)
}

func TestReporter_PublishesNothingAfterTheEnd(t *testing.T) {
	ends := map[string]func(*Reporter) error{
		"Complete": func(r *Reporter) error { return r.Complete("A film", 97) },
		"Fail":     func(r *Reporter) error { return r.Fail("The disk is full") },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			p := &published{}
			r := newReporter(t.Context(), p.publish, "u")
			r.Bytes(999, 1000)
			if err := end(r); err != nil {
				t.Fatal(err)
			}
			count := len(p.messages)
			if count != 2 {
				t.Fatalf("published %d messages, want the progress and the end", count)
			}
			r.Bytes(1, 1)
			r.Stage(StatusAnalyzing, StageIndexing, 100, "")
			if err := errors.Join(r.Complete("", 0), r.Fail("")); err != nil {
				t.Errorf("a second end returned %v", err)
			}
			if len(p.messages) != count {
				t.Errorf("published %+v after the end", p.messages[count:])
			}
		})
	}
}

func TestReporter_KeepsTheFirstErrorForTheEnd(t *testing.T) {
	lost := errors.New("broker is away")
	p := &published{err: lost}
	r := newReporter(t.Context(), p.publish, "u")
	r.Bytes(1, 2)
	p.err = nil
	r.Bytes(2, 2)
	if err := r.Complete("A film", 97); !errors.Is(err, lost) {
		t.Errorf("Complete returned %v, want the error that progress met", err)
	}
	if len(p.messages) != 2 {
		t.Errorf("published %d messages, want the second progress and the end", len(p.messages))
	}
	if err := r.Fail("again"); err != nil || len(p.messages) != 2 {
		t.Errorf("after the end was published, Fail returned %v and published %d messages", err, len(p.messages)-2)
	}
}

func TestReporter_EndCanBeRetried(t *testing.T) {
	p := &published{}
	r := newReporter(t.Context(), p.publish, "u")
	var invalid *InvalidError
	if err := r.Complete("A film", 101); !errors.As(err, &invalid) || invalid.Field != "audit_score" {
		t.Fatalf("Complete returned %v, want what is wrong with the score", err)
	}
	if err := r.Fail("No score"); err != nil {
		t.Fatal(err)
	}
	if want := (UploadFailed{ErrorMessage: "No score"}); len(p.messages) != 1 || p.messages[0] != Message(want) {
		t.Errorf("published %+v, want %+v", p.messages, want)
	}
}

func TestReporter_DoesNotHangOnAPublicationThatDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporter(t.Context(), func(ctx context.Context, _ string, _ Message) (Position, error) {
			<-ctx.Done()
			return Position{}, ctx.Err()
		}, "u")
		begun := time.Now()
		if err := r.Complete("", 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Complete returned %v, want that the deadline passed", err)
		}
		if d := time.Since(begun); d != progressPatience {
			t.Errorf("Complete took %v, want %v", d, progressPatience)
		}
	})
}

func TestProgress_PublishesThroughTheManager(t *testing.T) {
	m, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	r := m.Progress("u")
	r.Stage(StatusPending, StageQueued, 100, "Receiving")
	r.Bytes(1, 2)
	if err := r.Complete("A film", 97); err != nil {
		t.Fatal(err)
	}
	held := held(m, "u", Position{})
	if len(held.Messages) != 3 {
		t.Fatalf("%d messages in the history, want 3", len(held.Messages))
	}
	if end := string(held.Messages[2].Payload); !strings.Contains(end, `"action":"upload_completed"`) {
		t.Errorf("the newest message is %s", end)
	}
}

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

package manager

import (
	"context"
	"errors"
	"io"
	"math"
	"time"
)

const (
	// progressInterval is how long a change of less than a whole percent may stay unpublished, as long as
	// Bytes is called.
	progressInterval = 100 * time.Millisecond
	// progressPatience bounds one publication, so that a slow broker does not block the reported work.
	progressPatience = 5 * time.Second
)

// Reporter publishes the progress of one task. It must be used by one goroutine at a time. Its methods block only on
// the publication itself, until the context of ProgressContext ends and for five seconds at most. Each returns the
// error of its publication, as Publish does, and nil if there was nothing to publish.
//
// A task consists of consecutive stages, and each stage fills a part of the progress bar:
//
//	r := m.ProgressContext(ctx, uploadID)
//	defer r.Fail("the work was given up") // has no effect after Complete
//	err := r.Stage(manager.StatusPending, manager.StageQueued, 80, "Receiving the file")
//	...
//	_, err = io.Copy(file, r.Reader(body, size))
//	...
//	err = r.Stage(manager.StatusAnalyzing, manager.StageIndexing, 100, "Indexing")
//	...
//	return r.Complete("A short film", 97)
//
// A task may go on after a failed step: the next one publishes the state of that moment. After the context has ended
// nothing is published, not even the failure; for that, pass context.WithoutCancel(ctx).
//
// The percentage never decreases, and nothing is published after the end.
//
// A new stage is published at once. Within a stage, progress is published when the whole percentage has changed, or
// when 100 ms have passed since the last publication: a task of any size costs at most a hundred messages plus ten per
// second, and the published percentage is at most one percent behind. There is no timer: without a call nothing is
// published.
type Reporter struct {
	ctx      context.Context // ends with the task
	publish  func(ctx context.Context, uploadID string, msg Message) (Position, error)
	uploadID string

	status  Status
	stage   Stage
	message string
	// The stage fills the bar from start to end.
	start, end float64

	percent   float64
	published float64 // the percent that was published last
	at        time.Time
	staged    bool
	ended     bool
	err       error // the first that publishing a progress returned
}

// Progress is ProgressContext with a context that never ends.
func (m *Manager) Progress(uploadID string) *Reporter {
	return m.ProgressContext(context.Background(), uploadID)
}

// ProgressContext returns a reporter for a task on the upload that is over when ctx ends. It publishes nothing yet.
// Each attempt at the task requires its own reporter, and an upload should have one at a time.
func (m *Manager) ProgressContext(ctx context.Context, uploadID string) *Reporter {
	return newReporter(ctx, m.Publish, uploadID)
}

func newReporter(
	ctx context.Context, publish func(context.Context, string, Message) (Position, error), uploadID string,
) *Reporter {
	return &Reporter{
		ctx: ctx, publish: publish, uploadID: uploadID,
		status: StatusPending, stage: StageQueued, end: 100, published: -1,
	}
}

// Stage begins a stage and publishes it. The previous stage is complete, regardless of its last byte count. upTo is the
// percentage of the whole task, from 0 to 100, at the end of this stage; message is a text for people that applies
// until the next stage.
func (r *Reporter) Stage(status Status, stage Stage, upTo float64, message string) error {
	if err := r.check(); err != nil || r.ended {
		return err
	}
	if r.staged {
		r.percent = r.end
	}
	r.staged = true
	r.status, r.stage, r.message = status, stage, message
	r.start = r.percent
	r.end = max(r.start, within100(upTo))
	return r.progress()
}

// Bytes reports that done of the stage's total bytes are processed, and publishes the progress if it is due. A decrease
// is ignored; with a total of 0 or less, meaning unknown, the percentage does not change. Before the first stage it
// publishes StatusPending and StageQueued, which Options.Statuses and Stages may refuse.
func (r *Reporter) Bytes(done, total int64) error {
	if err := r.check(); err != nil || r.ended || total <= 0 {
		return err
	}
	share := within100(100*float64(done)/float64(total)) / 100
	percent := r.start + share*(r.end-r.start)
	if percent <= r.percent && r.published >= 0 {
		return nil
	}
	r.percent = max(r.percent, percent)
	if math.Floor(r.percent) != math.Floor(r.published) || time.Since(r.at) >= progressInterval {
		return r.progress()
	}
	return nil
}

// Writer returns a writer that counts the bytes written to it and reports the sum through Bytes, out of total. It never
// fails: Complete and Fail return the error of its publications. It must be used by the reporter's goroutine.
func (r *Reporter) Writer(total int64) io.Writer { return &byteCounter{reporter: r, total: total} }

// Reader returns a reader that reads from source and reports the bytes read through Bytes, out of total. It returns
// source's results; Complete and Fail return the error of its publications, as with Writer. It must be used by the
// reporter's goroutine.
func (r *Reporter) Reader(source io.Reader, total int64) io.Reader {
	return &countingReader{source, byteCounter{reporter: r, total: total}}
}

// Complete publishes the successful end of the task: its description, and its score from 0 to 100. The error joins the
// error of this publication and the first error of a progress publication: nil means that every message was published.
// If the end could not be published, the call may be retried, with Complete or Fail; once it is published, both have no
// effect and return nil.
func (r *Reporter) Complete(description string, auditScore float64) error {
	return r.finish(UploadCompleted{Description: description, AuditScore: auditScore})
}

// Fail publishes the failure of the task, with an error message for people. Otherwise it behaves like Complete.
func (r *Reporter) Fail(message string) error {
	return r.finish(UploadFailed{ErrorMessage: message})
}

// check returns an error for a Reporter that ProgressContext has not returned.
func (r *Reporter) check() error {
	if r == nil || r.publish == nil {
		return errReporterNotMade
	}
	return nil
}

func (r *Reporter) finish(end Message) error {
	if err := r.check(); err != nil || r.ended {
		return err
	}
	err := r.send(end)
	r.ended = err == nil
	return errors.Join(err, r.err)
}

func (r *Reporter) progress() error {
	r.published, r.at = r.percent, time.Now()
	err := r.send(UploadProgress{Status: r.status, Stage: r.stage, Percent: r.percent, Message: r.message})
	if r.err == nil {
		r.err = err
	}
	return err
}

func (r *Reporter) send(msg Message) error {
	ctx, cancel := context.WithTimeout(r.ctx, progressPatience)
	defer cancel()
	_, err := r.publish(ctx, r.uploadID, msg)
	return err
}

// byteCounter counts the bytes written to it. It must be used by the reporter's goroutine.
type byteCounter struct {
	reporter    *Reporter
	done, total int64
}

func (c *byteCounter) Write(p []byte) (int, error) {
	c.done += int64(len(p))
	_ = c.reporter.Bytes(c.done, c.total) // the reporter keeps the error for its end
	return len(p), nil
}

// countingReader counts the bytes read from source.
type countingReader struct {
	source io.Reader
	byteCounter
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.source.Read(p)
	_, _ = c.Write(p[:min(max(n, 0), len(p))])
	return n, err
}

// within100 clamps v to the range 0 to 100; NaN becomes 0.
func within100(v float64) float64 {
	if !(v > 0) { // the negation catches NaN too
		return 0
	}
	return min(v, 100)
}

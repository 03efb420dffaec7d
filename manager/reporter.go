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
	// progressPatience bounds one publication: the work that is reported on must not hang because those who
	// carry the report do.
	progressPatience = 5 * time.Second
)

// Reporter publishes how one piece of work goes, for those who do it. It belongs to one goroutine at a time.
// Its methods block on nothing but the publication itself, and on that for five seconds at most.
//
// The work is a row of stages, and each stage fills a part of the bar:
//
//	r := m.Progress(uploadID)
//	defer r.Fail("the work was given up") // has no effect after Complete
//	r.Stage(manager.StatusPending, manager.StageQueued, 80, "Receiving the file")
//	_, err := io.Copy(io.MultiWriter(file, r.Writer(size)), body)
//	...
//	r.Stage(manager.StatusAnalyzing, manager.StageIndexing, 100, "Indexing")
//	...
//	return r.Complete("A short film", 97)
//
// The percent never goes back, and after the end nothing more is published.
//
// A new stage is published at once. Within a stage, progress is published when the whole percent has changed,
// or when 100 ms have passed since the last publication: work of any size costs at most a hundred messages and
// ten a second besides, and who watches is never more than one percent behind. There is no timer: without a
// call nothing is published.
type Reporter struct {
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
	err       error // the first that publishing returned
}

// Progress returns a reporter for a piece of work on the upload. Nothing is published yet. Each attempt at the
// work takes a reporter of its own, and there should be one at a time for an upload.
func (m *Manager) Progress(uploadID string) *Reporter { return newReporter(m.Publish, uploadID) }

func newReporter(publish func(context.Context, string, Message) (Position, error), uploadID string) *Reporter {
	return &Reporter{
		publish: publish, uploadID: uploadID,
		status: StatusPending, stage: StageQueued, end: 100, published: -1,
	}
}

// Stage begins a stage and publishes it. The stage before it is done, whatever was last said of its bytes.
// upTo is the percent of the whole work, from 0 to 100, that is reached when this stage is done; message is a
// line for people that stands until the next stage.
func (r *Reporter) Stage(status Status, stage Stage, upTo float64, message string) {
	if r.ended {
		return
	}
	if r.staged {
		r.percent = r.end
	}
	r.staged = true
	r.status, r.stage, r.message = status, stage, message
	r.start = r.percent
	r.end = max(r.start, within100(upTo))
	r.progress()
}

// Bytes says that done of the stage's total bytes are done, and publishes it if it is time. What would go
// back is ignored; with a total of 0 or less, meaning unknown, the percent stays where it is.
func (r *Reporter) Bytes(done, total int64) {
	if r.ended || total <= 0 {
		return
	}
	share := within100(100*float64(done)/float64(total)) / 100
	percent := r.start + share*(r.end-r.start)
	if percent <= r.percent && r.published >= 0 {
		return
	}
	r.percent = max(r.percent, percent)
	if math.Floor(r.percent) != math.Floor(r.published) || time.Since(r.at) >= progressInterval {
		r.progress()
	}
}

// Writer returns a writer that counts what is written to it and reports the sum through Bytes, out of total.
// It never fails. It belongs to the reporter's goroutine.
func (r *Reporter) Writer(total int64) io.Writer { return &byteCounter{reporter: r, total: total} }

// Complete publishes the end of work that went well: what came out of it, and its score from 0 to 100. The
// error is that of this publication, joined with the first that a publication of progress met: a nil says
// that nothing was lost. If the end itself could not be published it may be tried again, with Complete or
// Fail; once it is published, both have no effect and return nil.
func (r *Reporter) Complete(description string, auditScore float64) error {
	return r.finish(UploadCompleted{UploadID: r.uploadID, Description: description, AuditScore: auditScore})
}

// Fail publishes the end of work that did not go well, with what went wrong, in words for people. Otherwise
// it is as Complete.
func (r *Reporter) Fail(message string) error {
	return r.finish(UploadFailed{UploadID: r.uploadID, ErrorMessage: message})
}

func (r *Reporter) finish(end Message) error {
	if r.ended {
		return nil
	}
	err := r.send(end)
	r.ended = err == nil
	return errors.Join(err, r.err)
}

func (r *Reporter) progress() {
	r.published, r.at = r.percent, time.Now()
	err := r.send(UploadProgress{
		UploadID: r.uploadID, Status: r.status, Stage: r.stage, Percent: r.percent, Message: r.message,
	})
	if r.err == nil {
		r.err = err
	}
}

func (r *Reporter) send(msg Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), progressPatience)
	defer cancel()
	_, err := r.publish(ctx, r.uploadID, msg)
	return err
}

// byteCounter counts what is written to it, for the reporter's goroutine alone.
type byteCounter struct {
	reporter    *Reporter
	done, total int64
}

func (c *byteCounter) Write(p []byte) (int, error) {
	c.done += int64(len(p))
	c.reporter.Bytes(c.done, c.total)
	return len(p), nil
}

// within100 returns the nearest percent; NaN is none.
func within100(v float64) float64 {
	if !(v > 0) { // the negation catches NaN too
		return 0
	}
	return min(v, 100)
}

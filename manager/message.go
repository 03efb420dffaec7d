package manager

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// Message is the interface of all messages that can be sent: UploadProgress, UploadCompleted, UploadFailed, or an
// Encoded that Parse returned. A message is a value; it may be sent any number of times, from any number of goroutines.
//
// An empty upload id in a message defaults to the upload that it is sent to. If both are given they must be equal. A
// message that is sent to a user must name its own upload, if any.
// be equal. A message that is sent to a user has no upload but its own.
type Message interface {
	// encode validates the message and returns its wire form. uploadID is the upload that it is sent to, or
	// "" if it is sent to a user; now is the timestamp of a message that has none.
	encode(uploadID string, now time.Time) (Encoded, error)
}

// The actions of the messages that this package knows by shape.
const (
	actionProgress  = "upload_progress"
	actionCompleted = "upload_completed"
	actionFailed    = "upload_failed"
)

// Status is the processing status of an upload.
type Status string

// The statuses of an upload.
const (
	StatusPending   Status = "pending"
	StatusAnalyzing Status = "analyzing"
	StatusEmbedding Status = "embedding"
	StatusCompleted Status = "completed"
	StatusFailed    Status = "failed"
)

// Stage is the current step of an upload's processing.
type Stage string

// The stages of an upload.
const (
	StageQueued              Stage = "queued"
	StageExtractingFrames    Stage = "extracting_frames"
	StageVisionAnalysis      Stage = "vision_analysis"
	StageDescriptionAudit    Stage = "description_audit"
	StageEmbeddingGeneration Stage = "embedding_generation"
	StageIndexing            Stage = "indexing"
	StageCompleted           Stage = "completed"
	StageFailed              Stage = "failed"
)

// UploadProgress is the state of an upload. For a slow client, a newer one may replace one that is still queued.
type UploadProgress struct {
	UploadID string
	Status   Status
	Stage    Stage
	// Percent is how far the upload is, from 0 to 100.
	Percent float64
	// Message is a text for people. As in every text, invalid UTF-8 is replaced by U+FFFD.
	Message string
	// ErrorMessage describes the failure; nil if there was no failure.
	ErrorMessage *string
	// AuditScore is the score of the description, from 0 to 100; nil until there is one.
	AuditScore *float64
	// Timestamp is when this was so. Zero: when it is sent.
	Timestamp time.Time
}

// UploadCompleted is the end of an upload that went well.
type UploadCompleted struct {
	UploadID    string
	Description string
	// AuditScore is the score of the description, from 0 to 100.
	AuditScore float64
	// Timestamp is when this was so. Zero: when it is sent.
	Timestamp time.Time
}

// UploadFailed is the end of an upload that did not go well.
type UploadFailed struct {
	UploadID     string
	ErrorMessage string
	// Timestamp is when this was so. Zero: when it is sent.
	Timestamp time.Time
}

// Encoded is a validated message in its wire form. It is immutable and may be sent any number of times, from any number
// of goroutines. The zero value is invalid and is refused.
type Encoded struct {
	// payload is one JSON object without white space around it.
	payload []byte
	class   frame.Class
	action  string
	// uploadID is the upload id in the payload, or "".
	uploadID string
}

// Payload returns the JSON. The caller must not change it.
func (e Encoded) Payload() []byte { return e.payload }

// Action returns the message's action, or "" for the zero value.
func (e Encoded) Action() string { return e.action }

func (e Encoded) encode(uploadID string, _ time.Time) (Encoded, error) {
	if e.payload == nil {
		return Encoded{}, &InvalidError{"", "is empty"}
	}
	field := "upload_id"
	if e.action == actionProgress {
		field = "payload.upload_id"
	}
	if _, err := sameUpload(field, e.uploadID, uploadID); err != nil {
		return Encoded{}, err
	}
	return e, nil
}

func (p UploadProgress) encode(uploadID string, now time.Time) (Encoded, error) {
	c := checker{}
	p.UploadID = c.uploadID("payload.upload_id", p.UploadID, uploadID)
	oneOf(&c, "payload.status", p.Status, StatusPending, StatusAnalyzing, StatusEmbedding, StatusCompleted,
		StatusFailed)
	oneOf(&c, "payload.stage", p.Stage, StageQueued, StageExtractingFrames, StageVisionAnalysis,
		StageDescriptionAudit, StageEmbeddingGeneration, StageIndexing, StageCompleted, StageFailed)
	c.percent("payload.progress_percent", p.Percent)
	if p.AuditScore != nil {
		c.percent("payload.description_audit_score", *p.AuditScore)
	}
	p.Timestamp = c.timestamp(p.Timestamp, now)
	if c.err != nil {
		return Encoded{}, c.err
	}
	return Encoded{p.json(), frame.State, actionProgress, p.UploadID}, nil
}

func (m UploadCompleted) encode(uploadID string, now time.Time) (Encoded, error) {
	c := checker{}
	m.UploadID = c.uploadID("upload_id", m.UploadID, uploadID)
	c.percent("audit_score", m.AuditScore)
	m.Timestamp = c.timestamp(m.Timestamp, now)
	if c.err != nil {
		return Encoded{}, c.err
	}
	return Encoded{m.json(), frame.Terminal, actionCompleted, m.UploadID}, nil
}

func (m UploadFailed) encode(uploadID string, now time.Time) (Encoded, error) {
	c := checker{}
	m.UploadID = c.uploadID("upload_id", m.UploadID, uploadID)
	m.Timestamp = c.timestamp(m.Timestamp, now)
	if c.err != nil {
		return Encoded{}, c.err
	}
	return Encoded{m.json(), frame.Terminal, actionFailed, m.UploadID}, nil
}

// sameUpload returns the one of two upload ids that is given, and refuses two that differ.
func sameUpload(field, own, addressed string) (string, error) {
	switch {
	case own == "":
		return addressed, nil
	case addressed == "" || own == addressed:
		return own, nil
	}
	return "", &InvalidError{field, "must be the id of the upload that the message is sent to"}
}

// checker validates the values of a message and keeps the first complaint.
type checker struct{ err error }

func (c *checker) keep(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *checker) uploadID(field, own, addressed string) string {
	id, err := sameUpload(field, own, addressed)
	if err == nil {
		err = CheckID(field, id)
	}
	c.keep(err)
	return id
}

func (c *checker) percent(field string, v float64) {
	if !(v >= 0 && v <= 100) { // the negation refuses NaN too
		c.keep(&InvalidError{field, "must be a number from 0 to 100"})
	}
}

// timestamp returns t, or now in its place, in UTC.
func (c *checker) timestamp(t, now time.Time) time.Time {
	if t.IsZero() {
		t = now
	}
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 { // RFC 3339 has four-digit years
		c.keep(&InvalidError{"timestamp", "must lie in the years 0 to 9999, in UTC"})
	}
	return t
}

func oneOf[T ~string](c *checker, field string, v T, allowed ...T) {
	if slices.Contains(allowed, v) {
		return
	}
	var list strings.Builder
	for i, a := range allowed {
		if i > 0 {
			list.WriteString(", ")
		}
		list.WriteString(string(a))
	}
	c.keep(&InvalidError{field, fmt.Sprintf("is %q, must be one of %s", abbreviated(string(v)), list.String())})
}

// abbreviated truncates client input for use in an error message.
func abbreviated(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

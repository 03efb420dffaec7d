package manager

import (
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// Message is the interface of all messages that can be sent: UploadProgress, UploadCompleted, UploadFailed, or an
// Encoded of NewEvent, NewState, NewTerminal or Manager.Parse. A message is a value; it may be sent any number of times, from any number of goroutines.
//
// An empty upload id in a message defaults to the upload that it is sent to. If both are given they must be equal. A
// message that is sent to a user must name its own upload, if any.
type Message interface {
	// encode validates the message and returns its wire form. uploadID is the upload that it is sent to, which the caller
	// has validated, or "" if it is sent to a user; now is the timestamp of a message that has none.
	encode(v *vocabulary, uploadID string, now time.Time) (Encoded, error)
}

// The actions of the messages that this package knows by shape.
const (
	actionProgress  = "upload_progress"
	actionCompleted = "upload_completed"
	actionFailed    = "upload_failed"
)

// Status is the processing status of an upload: a word of the application, of 1 to 64 characters a-z 0-9 _ - .
// Options.Statuses restricts them to a list.
type Status string

// Common statuses.
const (
	StatusPending   Status = "pending"
	StatusAnalyzing Status = "analyzing"
	StatusEmbedding Status = "embedding"
	StatusCompleted Status = "completed"
	StatusFailed    Status = "failed"
)

// Stage is the current step of an upload's processing: a word of the application, like Status. Options.Stages restricts
// them to a list.
type Stage string

// Common stages.
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
	class   Class
	action  string
	// uploadID is the upload that the message belongs to by its own members, or "".
	uploadID string
	// names is the upload id that a client finds in the payload, or "".
	names string
	// stateKey distinguishes the states of one upload.
	stateKey string
	// general: the message has been parsed without the vocabulary of a manager.
	general bool
}

// Payload returns the JSON. The caller must not change it.
func (e Encoded) Payload() []byte { return e.payload }

// Action returns the message's action, or "" for the zero value.
func (e Encoded) Action() string { return e.action }

// frame returns the frame of the message for an upload, at a position of it; a message without offset has the zero
// position.
func (e Encoded) frame(uploadID string, at Position) *Frame {
	return frame.ForUpload(frame.Message{
		UploadID: uploadID, Class: e.class, StateKey: e.stateKey, Epoch: at.Epoch, Offset: at.Offset, Body: e.payload,
		NamesUpload: e.names == uploadID,
	})
}

func (e Encoded) encode(v *vocabulary, uploadID string, now time.Time) (Encoded, error) {
	if e.payload == nil {
		return Encoded{}, &InvalidError{"", "is empty"}
	}
	field := "upload_id"
	if e.action == actionProgress {
		field = "payload.upload_id"
	}
	id, err := sameUpload(field, e.uploadID, uploadID)
	if err == nil && uploadID == "" && id != "" {
		err = CheckID(field, id) // Parse has been given it, and the message may not contain it
	}
	if err != nil {
		return Encoded{}, err
	}
	if e.general && v.restricts(e.action) {
		return v.parse(uploadID, e.payload, &now)
	}
	return e, nil
}

func (p UploadProgress) encode(v *vocabulary, uploadID string, now time.Time) (Encoded, error) {
	c := checker{}
	p.UploadID = c.uploadID("payload.upload_id", p.UploadID, uploadID)
	c.keep(v.statuses.check("payload.status", []byte(p.Status)))
	c.keep(v.stages.check("payload.stage", []byte(p.Stage)))
	c.percent("payload.progress_percent", p.Percent)
	if p.AuditScore != nil {
		c.percent("payload.description_audit_score", *p.AuditScore)
	}
	p.Timestamp = c.timestamp(p.Timestamp, now)
	if c.err != nil {
		return Encoded{}, c.err
	}
	return Encoded{
		payload: p.json(), class: ClassState, action: actionProgress, uploadID: p.UploadID, names: p.UploadID,
	}, nil
}

func (m UploadCompleted) encode(_ *vocabulary, uploadID string, now time.Time) (Encoded, error) {
	c := checker{}
	m.UploadID = c.uploadID("upload_id", m.UploadID, uploadID)
	c.percent("audit_score", m.AuditScore)
	m.Timestamp = c.timestamp(m.Timestamp, now)
	if c.err != nil {
		return Encoded{}, c.err
	}
	return Encoded{
		payload: m.json(), class: ClassTerminal, action: actionCompleted, uploadID: m.UploadID, names: m.UploadID,
	}, nil
}

func (m UploadFailed) encode(_ *vocabulary, uploadID string, now time.Time) (Encoded, error) {
	c := checker{}
	m.UploadID = c.uploadID("upload_id", m.UploadID, uploadID)
	m.Timestamp = c.timestamp(m.Timestamp, now)
	if c.err != nil {
		return Encoded{}, c.err
	}
	return Encoded{
		payload: m.json(), class: ClassTerminal, action: actionFailed, uploadID: m.UploadID, names: m.UploadID,
	}, nil
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
	if err == nil && addressed == "" {
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
	t, err := inUTC(t)
	c.keep(err)
	return t
}

// abbreviated truncates client input for use in an error message.
func abbreviated(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

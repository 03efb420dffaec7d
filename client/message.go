package client

import (
	"encoding/json"
	"fmt"
)

// Position is a place in the messages of an upload: an epoch, which ends when the upload's history is lost, and an
// offset that increases with each message of the epoch.
type Position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

// Message is a message of an upload. Its fields may be read from any goroutine and must not be changed.
type Message struct {
	// UploadID is the upload, or "" for a message to the user that belongs to none.
	UploadID string
	// Action is "upload_progress", "upload_completed", "upload_failed" or an action of the application.
	Action string
	// Position is the message's place. Its offset is 0 if the message has none.
	Position
	// Skipped is the number of older states that this one replaced because the connection or the loop was slow.
	Skipped uint64
	// Data is the JSON object as it was received.
	Data json.RawMessage
}

// Actions of messages that every application has.
const (
	ActionProgress  = "upload_progress"
	ActionCompleted = "upload_completed"
	ActionFailed    = "upload_failed"
)

// Decode decodes the JSON object into v, as json.Unmarshal does. The error wraps that of json.Unmarshal.
func (m Message) Decode(v any) error {
	if err := json.Unmarshal(m.Data, v); err != nil {
		return fmt.Errorf("client: message %q: %w", m.Action, err)
	}
	return nil
}

// Terminal reports whether the message is upload_completed or upload_failed. Nothing more is to be expected of the
// upload, unless the application begins it again.
func (m Message) Terminal() bool { return m.Action == ActionCompleted || m.Action == ActionFailed }

// Progress is the payload of an upload_progress. Status and Stage are words of the application.
type Progress struct {
	Status  string  `json:"status"`
	Stage   string  `json:"stage"`
	Percent float64 `json:"progress_percent"`
	Message string  `json:"message"`
	// Error is nil unless the application reports an error.
	Error *string `json:"error_message"`
	// AuditScore is nil until there is one.
	AuditScore *float64 `json:"description_audit_score"`
}

// Progress returns the payload of an upload_progress, and false for any other message or a malformed one.
func (m Message) Progress() (Progress, bool) {
	var body struct {
		Payload *Progress `json:"payload"`
	}
	if m.Action != ActionProgress || json.Unmarshal(m.Data, &body) != nil || body.Payload == nil {
		return Progress{}, false
	}
	return *body.Payload, true
}

// Outcome is the content of an upload_completed or upload_failed.
type Outcome struct {
	// Failed is true for an upload_failed. Error is its reason.
	Failed bool   `json:"-"`
	Error  string `json:"error_message"`
	// Description and AuditScore belong to an upload_completed.
	Description string  `json:"description"`
	AuditScore  float64 `json:"audit_score"`
}

// Outcome returns the content of an upload_completed or upload_failed, and false for any other message or a malformed
// one.
func (m Message) Outcome() (Outcome, bool) {
	o := Outcome{Failed: m.Action == ActionFailed}
	if !m.Terminal() || json.Unmarshal(m.Data, &o) != nil {
		return Outcome{}, false
	}
	return o, true
}

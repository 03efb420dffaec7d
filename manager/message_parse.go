package manager

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/shoal-go/shoal/internal/frame"
)

// Parse validates a JSON message. uploadID is the upload that it is sent to, or "" if it is sent to a user; now is the
// timestamp of a message that has none. data is copied.
//
// upload_progress, upload_completed and upload_failed must match the protocol's schema and are encoded again in its
// field order. Any other object with an application-defined action is kept byte for byte, except for surrounding white
// space.
//
// Every error is an *InvalidError that names the field. The caller must bound the size of data.
func Parse(uploadID string, data []byte, now time.Time) (Encoded, error) {
	data = bytes.Trim(data, " \t\r\n")
	if err := checkJSON(data); err != nil {
		return Encoded{}, err
	}
	r, err := takeApart("", data)
	if err != nil {
		return Encoded{}, err
	}
	var m Message
	switch action := r.text("action"); action {
	case actionProgress:
		m = r.progress()
	case actionCompleted:
		m = r.completed()
	case actionFailed:
		m = r.failed()
	default:
		m = r.foreign(action, data)
	}
	if r.err != nil {
		return Encoded{}, r.err
	}
	return m.encode(uploadID, now)
}

func checkJSON(data []byte) error {
	if !utf8.Valid(data) {
		return &InvalidError{"", "must be valid UTF-8"}
	}
	if json.Valid(data) {
		return nil
	}
	problem := "is not valid JSON"
	var syntax *json.SyntaxError
	if errors.As(json.Unmarshal(data, new(json.RawMessage)), &syntax) {
		problem += fmt.Sprintf(": %v, at byte %d", syntax, syntax.Offset)
	}
	return &InvalidError{"", problem}
}

func (r *reader) progress() Message {
	p := r.object("payload")
	m := UploadProgress{
		UploadID:     p.id("upload_id"),
		Status:       Status(p.text("status")),
		Stage:        Stage(p.text("stage")),
		Percent:      p.number("progress_percent"),
		Message:      p.text("message"),
		ErrorMessage: p.textOrNull("error_message"),
		AuditScore:   p.numberOrNull("description_audit_score"),
	}
	p.refuseRest()
	r.keep(p.err)
	m.Timestamp = r.time("timestamp")
	r.refuseRest()
	return m
}

func (r *reader) completed() Message {
	m := UploadCompleted{
		UploadID:    r.id("upload_id"),
		Description: r.text("description"),
		AuditScore:  r.number("audit_score"),
		Timestamp:   r.time("timestamp"),
	}
	r.refuseRest()
	return m
}

func (r *reader) failed() Message {
	m := UploadFailed{
		UploadID:     r.id("upload_id"),
		ErrorMessage: r.text("error_message"),
		Timestamp:    r.time("timestamp"),
	}
	r.refuseRest()
	return m
}

// foreign reads a message whose shape is its application's own affair.
func (r *reader) foreign(action string, data []byte) Message {
	if action == "" {
		r.refuse("action", "must not be empty")
	}
	if reserved(action) {
		r.refuse("action", fmt.Sprintf("is %q, which is reserved for the protocol", action))
	}
	for _, field := range []string{"offset", "skipped"} {
		if _, given := r.take(field); given {
			r.refuse(field, "is a field that the server adds; a published message must not have it")
		}
	}
	id := r.id("upload_id")
	return Encoded{bytes.Clone(data), frame.Event, action, id}
}

// reserved reports whether an action is one that the server or a client of the protocol sends: a published
// message must not be mistaken for one.
func reserved(action string) bool {
	switch action {
	case "auth", "auth_success", "auth_error",
		"ping", "pong",
		"subscribe_upload", "subscribed", "unsubscribe_upload", "unsubscribed",
		"resume", "resumed", "reconnect", "error":
		return true
	}
	return false
}

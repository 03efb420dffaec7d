package manager

import (
	"bytes"
	"strings"
	"time"
)

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
	if (e.general || e.own && v.shared) && v.restricts(e.action) {
		again, err := v.parse(uploadID, e.payload, &now)
		again.stamp = e.stamp // Parse has completed the payload already
		return again, err
	}
	return e, nil
}

// content returns the JSON without the timestamp that Parse has inserted.
func (e Encoded) content() string {
	if e.stamp == 0 {
		return string(e.payload)
	}
	before, after := e.payload[:e.stamp], e.payload[e.stamp+1:]
	return string(before) + string(after[bytes.IndexByte(after, '"'):])
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

// json returns the wire form of a message that has been validated. The order of the fields is the protocol's.
func (p UploadProgress) json() []byte {
	var room [usualBytes]byte
	b := append(room[:0], `{"action":"`+actionProgress+`","payload":{"upload_id":`...)
	b = appendString(b, p.UploadID)
	b = append(b, `,"status":"`...)
	b = append(b, p.Status...)
	b = append(b, `","stage":"`...)
	b = append(b, p.Stage...)
	b = append(b, `","progress_percent":`...)
	b = appendNumber(b, p.Percent)
	b = append(b, `,"message":`...)
	b = appendString(b, p.Message)
	b = append(b, `,"error_message":`...)
	if p.ErrorMessage != nil {
		b = appendString(b, *p.ErrorMessage)
	} else {
		b = append(b, `null`...)
	}
	b = append(b, `,"description_audit_score":`...)
	if p.AuditScore != nil {
		b = appendNumber(b, *p.AuditScore)
	} else {
		b = append(b, `null`...)
	}
	b = append(b, '}')
	b = appendTimestamp(b, p.Timestamp)
	return bytes.Clone(append(b, '}'))
}

func (m UploadCompleted) json() []byte {
	var room [usualBytes]byte
	b := append(room[:0], `{"action":"`+actionCompleted+`","upload_id":`...)
	b = appendString(b, m.UploadID)
	b = append(b, `,"description":`...)
	b = appendString(b, m.Description)
	b = append(b, `,"audit_score":`...)
	b = appendNumber(b, m.AuditScore)
	b = appendTimestamp(b, m.Timestamp)
	return bytes.Clone(append(b, '}'))
}

func (m UploadFailed) json() []byte {
	var room [usualBytes]byte
	b := append(room[:0], `{"action":"`+actionFailed+`","upload_id":`...)
	b = appendString(b, m.UploadID)
	b = append(b, `,"error_message":`...)
	b = appendString(b, m.ErrorMessage)
	b = appendTimestamp(b, m.Timestamp)
	return bytes.Clone(append(b, '}'))
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

// inUTC returns a time in UTC, and an error if it cannot be written in RFC 3339, which has years of four digits.
func inUTC(t time.Time) (time.Time, error) {
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return t, &InvalidError{"timestamp", "must lie in the years 0 to 9999, in UTC"}
	}
	return t, nil
}

// abbreviated truncates client input for use in an error message.
func abbreviated(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

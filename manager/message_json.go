package manager

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// The encoder is written by hand rather than by reflection: publishing is the hot path, and encoding takes a single
// allocation, for the payload.

// usualBytes holds most messages, so that they are put together on the stack and allocated once, in their
// exact size: the history keeps them.
const usualBytes = 512

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

func appendTimestamp(b []byte, t time.Time) []byte {
	return appendTime(append(b, `,"timestamp":`...), t)
}

func appendTime(b []byte, t time.Time) []byte {
	b = t.AppendFormat(append(b, '"'), time.RFC3339Nano)
	return append(b, '"')
}

// appendNumber appends a number from 0 to 100. In that range the exponent form appears only below 0.0001, so
// that no value is long.
func appendNumber(b []byte, v float64) []byte { return strconv.AppendFloat(b, v, 'g', -1, 64) }

// appendString appends s as a JSON string. It escapes only the characters for which JSON requires it; invalid UTF-8
// becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	s = strings.ToValidUTF8(s, "\uFFFD")
	b = append(b, '"')
	plain := 0 // start of the bytes that are not appended yet
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[plain:i]...)
		plain = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xF])
		}
	}
	b = append(b, s[plain:]...)
	return append(b, '"')
}

package manager

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// The encoder is written by hand rather than by reflection: publishing is the hot path, and encoding takes a single
// allocation, for the payload.

// usualBytes holds most messages, so that they are put together on the stack and allocated once, in their
// exact size: the history keeps them.
const usualBytes = 512

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

func isNull(value []byte) bool { return string(value) == "null" }

// textOf returns a valid JSON value without its quotes and escapes, and whether it is a string. The text is a part
// of the value unless that has escapes, which are left to encoding/json: asking it costs more than all else that is
// done with a member.
func textOf(value []byte) (text []byte, ok bool) {
	if value[0] != '"' {
		return nil, false
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1], true
	}
	var decoded string
	err := json.Unmarshal(value, &decoded)
	return []byte(decoded), err == nil
}

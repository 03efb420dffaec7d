package manager

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzParse holds Parse to what the rest of the module builds on: whatever it accepts is one JSON object in
// valid UTF-8 that ends in a brace with a field before it, and parses to itself.
func FuzzParse(f *testing.F) {
	for _, file := range []string{
		"upload_progress.json", "upload_progress_full.json", "upload_completed.json", "upload_failed.json",
	} {
		data := []byte(golden(f, file))
		f.Add("", data)
		f.Add("up-1", data)
	}
	f.Add("up-1", []byte(` {"action":"note","a":{"a":[null,true,1e9,"\ud800"]}}`))
	f.Add("", []byte(`{"action":"error","upload_id":"\u0000"}`))

	f.Fuzz(func(t *testing.T, uploadID string, data []byte) {
		input := bytes.Clone(data)
		e, err := Parse(uploadID, data, noon)
		if !bytes.Equal(input, data) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if e.Payload() != nil || !utf8.ValidString(err.Error()) {
				t.Fatalf("%q beside %q", e.Payload(), err)
			}
			return
		}
		payload := e.Payload()
		var fields map[string]any
		if err := json.Unmarshal(payload, &fields); err != nil && !isRangeError(err) {
			t.Fatalf("%q: %v", payload, err)
		}
		if !utf8.Valid(payload) || payload[0] != '{' || payload[len(payload)-1] != '}' || !bytes.ContainsRune(payload, ':') {
			t.Fatalf("%q is not one object with a field", payload)
		}
		again, err := Parse(uploadID, payload, time.Time{})
		if err != nil || !bytes.Equal(again.Payload(), payload) || again.class != e.class || again.uploadID != e.uploadID {
			t.Fatalf("parsed again: %q, %v, want %q", again.Payload(), err, payload)
		}
	})
}

// isRangeError reports whether err is about a number that JSON can write and a float64 cannot hold.
func isRangeError(err error) bool {
	_, ok := err.(*json.UnmarshalTypeError) //nolint:errorlint // as json returns it
	return ok
}

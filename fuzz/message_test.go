package fuzz_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/shoal-go/shoal/manager"
)

// FuzzClientMessage sends an arbitrary text message after authentication, followed by a subscription. The answers are
// JSON objects with an action, the message subscribes the client to nothing that it may not follow, and
// the connection either ends or continues and answers the subscription.
func FuzzClientMessage(f *testing.F) {
	for _, seed := range []string{
		`{"action":"subscribe_upload","upload_id":"secret"}`,
		`{"action":"subscribe_upload","upload_id":"open","upload_id":"secret"}`,
		`{"ACTION":"subscribe_upload","UPLOAD_ID":"open-1"}`,
		`{"action":"subscribe_upload","upload_id":"\ud800"}`,
		`{"action":"subscribe_upload","upload_id":"open","since":{"epoch":"e","offset":18446744073709551615}}`,
		`{"action":"resume","uploads":{"open-1":{"epoch":"","offset":0},"secret":{"epoch":"x","offset":1}}}`,
		`{"action":"resume","uploads":{"open-1":{"offset":1},"open-1":{"epoch":"x"}}}`,
		`{"action":"unsubscribe_upload","upload_id":"open"}`,
		`{"type":"auth","token":"user-bob"}`, `{"action":"pong"}`, "\ufeff{}", `[]`, `{"action":1}`,
		`{"action":"app.own","Action":"subscribe_upload","upload_id":"secret"}`, `{"Action":"pong"}`,
		`{"action":"subscribe_upload","upload_id":"open","ſince":{"epoch":"","offset":0}}`,
		`{"type":"auth","token":"user-ann","Token":"user-bob"}`, `{"TYPE":"auth","token":"user-bob"}`,
		`{"Type":"auth","kind":1}`, `{"action":"subscribe_upload","upload_id":"open","type":5}`,
		`{"action":"resume","uploads":{"open":{"epoch":"e","offset":9007199254740993}}}`,
		`{"action":"subscribe_upload","upload_id":"open\u0000"}`, `{"action":"subscribe_upload","upload_id":"open\ufffd"}`,
	} {
		f.Add(seed)
	}
	s := start(f)
	f.Fuzz(func(t *testing.T, message string) {
		c := s.upgrade(t, "shoal.v1")
		defer func() { _ = c.Close() }()
		_, _ = c.Write(text(`{"type":"auth","token":"user-ann"}`))
		_, _ = c.Write(text(message))
		_, _ = c.Write(text(`{"action":"subscribe_upload","upload_id":"open-last"}`))
		for {
			opcode, payload, err := c.next()
			if err != nil || opcode == 0x8 {
				break
			}
			if opcode != 0x1 {
				continue
			}
			var answer struct {
				Action   string `json:"action"`
				UploadID string `json:"upload_id"`
			}
			if json.Unmarshal(payload, &answer) != nil || answer.Action == "" {
				t.Fatalf("an answer that is no message: %q", payload)
			}
			if answer.Action == "subscribed" && !strings.HasPrefix(answer.UploadID, "open") {
				t.Fatalf("subscribed to an upload that the user may not follow: %s", payload)
			}
			if answer.Action == "subscribed" && answer.UploadID == "open-last" {
				break
			}
		}
		_ = c.Close()
		s.nothingLeft(t)
	})
}

// FuzzMessage parses an arbitrary published message. An accepted one is a JSON object in valid UTF-8 that parses to
// itself; a refused one has a printable reason and no payload; the input is never changed.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{
		`{"action":"upload_progress","payload":{"upload_id":"up-1","status":"analyzing","stage":"vision_analysis",` +
			`"progress_percent":50,"message":"m","error_message":null,"description_audit_score":null}}`,
		`{"action":"upload_completed","upload_id":"up-1","description":"d","audit_score":97}`,
		`{"action":"upload_failed","upload_id":"up-1","error_message":"e","timestamp":"2026-11-27T10:55:45.001234"}`,
		`{"action":"note","a":{"a":[null,true,1e9,"\ud800"]}}`, `{"action":"note","offset":1}`, "\ufeff{}",
		`{"action":"note","n":9007199254740993,"x":1e400,"z":-0}`, `{"action":"app.n","offset":1}`,
		`{"action":"note","Action":"subscribed"}`, `{"action":"note","upload_id":"up-1","upload_id":"up-2"}`,
	} {
		f.Add("up-1", []byte(seed))
	}
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, uploadID string, data []byte) {
		input := bytes.Clone(data)
		message, err := manager.Parse(uploadID, data, now)
		if !bytes.Equal(input, data) {
			t.Fatal("the input was changed")
		}
		payload := message.Payload()
		if err != nil {
			if payload != nil || !utf8.ValidString(err.Error()) {
				t.Fatalf("%q beside the error %q", payload, err)
			}
			return
		}
		if !utf8.Valid(payload) || !json.Valid(payload) || payload[0] != '{' {
			t.Fatalf("%q is not a JSON object", payload)
		}
		again, err := manager.Parse(uploadID, payload, time.Time{})
		if err != nil || !bytes.Equal(again.Payload(), payload) {
			t.Fatalf("parsed again: %q, %v, want %q", again.Payload(), err, payload)
		}
	})
}

package manager

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// Missing optional members are added, a timestamp is written in UTC, and every other byte is kept.
func TestParse_CompletesKnownMessages(t *testing.T) {
	const noonUTC = `"timestamp":"2026-01-31T12:00:00Z"`
	for data, want := range map[string]string{
		"\n{\"payload\": {\"message\": \"frame\\n17\", \"progress_percent\": 4.25e1,\n \"stage\":\"s.1\", \"status\":\"b-2\" }, \"\\u0061ction\": \"upload_progress\" }\r\n": "{\"payload\": {\"upload_id\":\"up-1\",\"message\": \"frame\\n17\", \"progress_percent\": 4.25e1,\n \"stage\":\"s.1\", \"status\":\"b-2\" ," +
			`"error_message":null,"description_audit_score":null}, "\u0061ction": "upload_progress" ,` + noonUTC + `}`,
		`{"timestamp":"2026-01-31T14:00:00+02:00","eta_seconds":{"a":[7,"}"]},"action":"upload_progress","payload":{"upload_id":"up-1",` +
			`"message":"","progress_percent":100,"error_message":"e","eta":1e999,"stage":"0","status":"_","description_audit_score":1}}`: //
		`{` + noonUTC + `,"eta_seconds":{"a":[7,"}"]},"action":"upload_progress","payload":{"upload_id":"up-1",` +
			`"message":"","progress_percent":100,"error_message":"e","eta":1e999,"stage":"0","status":"_","description_audit_score":1}}`,
		`{"action":"upload_completed","description":"d","audit_score":0,"files":["a"]}`://
		`{"action":"upload_completed","upload_id":"up-1","description":"d","audit_score":0,"files":["a"],` + noonUTC + `}`,
		`{"action":"upload_failed", "error_message":"e","timestamp":"2026-01-31T12:00:00.5"}`://
		`{"action":"upload_failed","upload_id":"up-1", "error_message":"e","timestamp":"2026-01-31T12:00:00.5Z"}`,
	} {
		input := []byte(data)
		e, err := Parse("up-1", input, noon)
		clear(input) // the message must not share the caller's memory
		if got := string(e.Payload()); err != nil || got != want || !json.Valid(e.Payload()) {
			t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
		}
	}
}

func TestParse_KeepsForeignMessagesByteForByte(t *testing.T) {
	for _, data := range []string{
		`{"action":"x"}`,
		`{ "b" : [1, {"offset":1,"a":1,"a":2}],` + "\n" + ` "action" : "thumbnail_ready", "Offset": 1e999, "c":"\ud800" }`,
		`{"upload_id":"up\u002d1","action":"Upload_Progress","payload":null,"timestamp":7}`,
	} {
		input := []byte(" \t\r\n" + data + "\n")
		e, err := Parse("up-1", input, noon)
		if err != nil {
			t.Errorf("%s: %v", data, err)
			continue
		}
		clear(input) // the message must not share the caller's memory
		if string(e.Payload()) != data || e.class != frame.Event {
			t.Errorf("got %s of class %d, want %s as an event", e.Payload(), e.class, data)
		}
	}
}

func TestParse_Refuses(t *testing.T) {
	const (
		inPayload = `{"action":"upload_progress","payload":{"status":"pending","stage":"queued","message":"",`
		percent   = `"progress_percent":0`
		completed = `{"action":"upload_completed","description":""`
		failed    = `{"action":"upload_failed","error_message":""`
		note      = `{"action":"note"`
	)
	long := strings.Repeat("ä", 100)
	for _, test := range []struct{ name, data, field, problem string }{
		{"nothing", " ", "", "is not valid JSON: unexpected end of JSON input"},
		{"broken JSON", note + `,}`, "", "is not valid JSON: invalid character '}'"},
		{"trailing data", note + `} {}`, "", "after top-level value, at byte 19"},
		{"number as Go has it", note + `,"a":0x10}`, "", "is not valid JSON"},
		{"too deep", strings.Repeat("[", 20_000), "", "exceeded max depth"},
		{"not UTF-8", note + ",\"a\":\"\xff\"}", "", "must be valid UTF-8"},
		{"byte order mark", "\uFEFF" + note + `}`, "", "is not valid JSON"},
		{"array", `[{"action":"note"}]`, "", "must be a JSON object"},
		{"null", `null`, "", "must be a JSON object"},
		{"empty object", `{}`, "action", "is missing"},
		{"action in capitals", `{"Action":"note"}`, "action", "is missing"},
		{"action of another type", `{"action":7}`, "action", "must be a string"},
		{"empty action", `{"action":""}`, "action", "must not be empty"},
		{"field twice", note + `,"\u0061ction":"x"}`, "action", "stands there twice"},
		{"long field twice", note + `,"` + long + `":1,"` + long + `":2}`, long[:40], "stands there twice"},
		{"foreign with offset", note + `,"offset":1}`, "offset", "the server adds"},
		{"foreign with skipped", note + `,"skipped":null}`, "skipped", "the server adds"},
		{"foreign elsewhere", note + `,"upload_id":"up-2"}`, "upload_id", "must be the id of the upload"},
		{"foreign id of another type", note + `,"upload_id":7}`, "upload_id", "must be a string"},

		{"no payload", `{"action":"upload_progress"}`, "payload", "is missing"},
		{"payload of another type", `{"action":"upload_progress","payload":[]}`, "payload", "must be an object"},
		{"empty payload", `{"action":"upload_progress","payload":{}}`, "payload.status", "is missing"},
		{"percent missing", inPayload + `"upload_id":"up-1"}}`, "payload.progress_percent", "is missing"},
		{"percent as text", inPayload + `"progress_percent":"1"}}`, "payload.progress_percent", "must be a number"},
		{"percent null", inPayload + `"progress_percent":null}}`, "payload.progress_percent", "must be a number"},
		{"percent too large", inPayload + `"progress_percent":100.5}}`, "payload.progress_percent", "from 0 to 100"},
		{"percent huge", inPayload + `"progress_percent":1e999}}`, "payload.progress_percent", "from 0 to 100"},
		{"percent negative", inPayload + `"progress_percent":-1}}`, "payload.progress_percent", "from 0 to 100"},
		{"payload field twice", inPayload + percent + `,"stage":"queued"}}`, "payload.stage", "stands there twice"},
		{"field unknown", inPayload + percent + `},"offset":3}`, "offset", "is a field that the server adds"},
		{"error of another type", inPayload + percent + `,"error_message":1}}`, "payload.error_message", "must be a string"},
		{"score of another type", inPayload + percent + `,"description_audit_score":"1"}}`,
			"payload.description_audit_score", "must be a number"},
		{"score too large", inPayload + percent + `,"description_audit_score":101}}`,
			"payload.description_audit_score", "from 0 to 100"},
		{"other upload", inPayload + percent + `,"upload_id":"up-2"}}`, "payload.upload_id", "must be the id of the upload"},
		{"empty id", inPayload + percent + `,"upload_id":""}}`, "payload.upload_id", "must not be empty"},
		{"id null", inPayload + percent + `,"upload_id":null}}`, "payload.upload_id", "must be a string"},
		{"id with a control character", inPayload + percent + `,"upload_id":"a\u0000"}}`, "payload.upload_id", "control characters"},
		{"message null", `{"action":"upload_progress","payload":{"status":"pending","stage":"queued","message":null,` + percent + `}}`,
			"payload.message", "must be a string"},
		{"long status", `{"action":"upload_progress","payload":{"status":"` + long + `","stage":"queued","message":"",` + percent + `}}`,
			"payload.status", `is "` + long[:40] + `", must be 1 to 64 characters of a-z 0-9 _ - .`},
		{"unknown stage", `{"action":"upload_progress","payload":{"status":"failed","stage":"index\u000aing","message":"",` + percent + `}}`,
			"payload.stage", `is "index\ning", must be 1 to 64 characters of a-z 0-9 _ - .`},

		{"description missing", `{"action":"upload_completed","audit_score":1}`, "description", "is missing"},
		{"audit score missing", completed + `}`, "audit_score", "is missing"},
		{"audit score null", completed + `,"audit_score":null}`, "audit_score", "must be a number"},
		{"audit score too large", completed + `,"audit_score":1e3}`, "audit_score", "from 0 to 100"},
		{"completed elsewhere", completed + `,"audit_score":1,"upload_id":"up-2"}`, "upload_id", "must be the id of the upload"},
		{"error missing", `{"action":"upload_failed"}`, "error_message", "is missing"},
		{"error null", `{"action":"upload_failed","error_message":null}`, "error_message", "must be a string"},

		{"timestamp of another type", failed + `,"timestamp":1769860800}`, "timestamp", "must be a string"},
		{"timestamp null", failed + `,"timestamp":null}`, "timestamp", "must be a string"},
		{"timestamp without a time", failed + `,"timestamp":"2026-01-31"}`, "timestamp", "RFC 3339"},
		{"timestamp with a space", failed + `,"timestamp":"2026-01-31 12:00:00"}`, "timestamp", "RFC 3339"},
		{"timestamp without a zone, with a comma", failed + `,"timestamp":"2026-01-31T12:00:00,5"}`, "timestamp", "RFC 3339"},
		{"timestamp without a zone, with a short hour", failed + `,"timestamp":"2026-01-31T1:00:00"}`, "timestamp", "RFC 3339"},
		{"timestamp with a comma", failed + `,"timestamp":"2026-01-31T12:00:00,5Z"}`, "timestamp", "RFC 3339"},
		{"timestamp with a short hour", failed + `,"timestamp":"2026-01-31T1:00:00Z"}`, "timestamp", "RFC 3339"},
		{"timestamp beyond RFC 3339", failed + `,"timestamp":"9999-12-31T23:59:59-01:00"}`, "timestamp", "years 0 to 9999"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := Parse("up-1", []byte(test.data), noon)
			wantInvalid(t, err, test.field, test.problem)
			if e.Payload() != nil {
				t.Errorf("returned %s beside the error", e.Payload())
			}
			if text := err.Error(); len(text) > 300 || strings.ContainsAny(text, "\n\x00") {
				t.Errorf("not one short line: %q", text)
			}
		})
	}
}

func TestParse_RefusesReservedActions(t *testing.T) {
	for _, action := range []string{
		"auth", "auth_success", "auth_error", "ping", "pong", "subscribe_upload", "subscribed", "unsubscribe_upload",
		"unsubscribed", "resume", "resumed", "reconnect", "error",
	} {
		_, err := Parse("up-1", []byte(`{"action":"`+action+`"}`), noon)
		wantInvalid(t, err, "action", `is "`+action+`", which is reserved`)
	}
}

func TestParse_WithoutAnUploadNeedsTheMessagesOwn(t *testing.T) {
	for field, data := range map[string]string{
		"payload.upload_id": `{"action":"upload_progress","payload":{"status":"pending","stage":"queued",` +
			`"message":"","progress_percent":0}}`,
		"upload_id": `{"action":"upload_failed","error_message":""}`,
	} {
		_, err := Parse("", []byte(data), noon)
		wantInvalid(t, err, field, "must not be empty")
	}
	if _, err := Parse("", []byte(`{"action":"note"}`), noon); err != nil {
		t.Errorf("a message of no upload: %v", err)
	}
}

// A timestamp without a zone is UTC, as Python's utcnow().isoformat() writes it.
func TestParse_TimestampWithoutZoneIsUTC(t *testing.T) {
	for text, want := range map[string]string{
		"2026-11-27T10:55:45.001234": "2026-11-27T10:55:45.001234Z", "2026-11-27T10:55:45": "2026-11-27T10:55:45Z",
		"2026-11-27T10:55:45+02:00": "2026-11-27T08:55:45Z",
	} {
		for _, message := range []string{
			`{"action":"upload_failed","error_message":"e","timestamp":"` + text + `"}`,
			`{"action":"upload_completed","description":"d","audit_score":1,"timestamp":"` + text + `"}`,
			`{"action":"upload_progress","payload":{"status":"pending","stage":"queued","progress_percent":0,"message":""},` +
				`"timestamp":"` + text + `"}`,
		} {
			e, err := Parse("up-1", []byte(message), time.Now())
			if err != nil || !strings.Contains(string(e.Payload()), `"timestamp":"`+want+`"`) {
				t.Errorf("%s: %v, %s", message, err, e.Payload())
			}
		}
	}
}

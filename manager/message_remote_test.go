package manager

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/internal/frame"
)

func TestParseRemote_ReadsMembersForDelivery(t *testing.T) {
	for _, test := range []struct {
		data, action string
		class        frame.Class
		uploadID     string // where none is given
	}{
		{`{"action":"upload_progress","payload":{"upload_id":"cat"}}`, "upload_progress", frame.State, "cat"},
		{`{"payload":{"a":{"upload_id":7},"upload_id":"cat"},"action":"upload_progress"}`, "upload_progress", frame.State, "cat"},
		{`{"action":"upload_progress","payload":null}`, "upload_progress", frame.State, ""},
		{`{"action":"upload_progress"}`, "upload_progress", frame.State, ""},
		{`{"action":"upload_progress","payload":{}}`, "upload_progress", frame.State, ""},
		{`{"action":"upload_completed","upload_id":"cat"}`, "upload_completed", frame.Terminal, "cat"},
		{`{"upload_id":"cat","action":"upload_failed"}`, "upload_failed", frame.Terminal, "cat"},
		{`{"action":"upload_failed"}`, "upload_failed", frame.Terminal, ""},
		{`{"action":"upload_progress ","a":[1,{"action":"x"}]}`, "upload_progress ", frame.Event, ""},
		{`{"acti\u006fn":"n\u006fte","upload\u005fid":"c\u0061t"}`, "note", frame.Event, "cat"},
		{`{"Action":1,"OFFSET":1,"action":"note"}`, "note", frame.Event, ""},
		// Payloads of application-defined messages are not checked.
		{`{"action":"note","payload":{"upload_id":"dog"}}`, "note", frame.Event, ""},
		{`{"payload":{"upload_id":7},"action":"note"}`, "note", frame.Event, ""},
		{`{"action":"note","payload":{"upload_id":"dog"},"upload_id":"cat"}`, "note", frame.Event, "cat"},
		{" \t\r\n{ \"action\" : \"note\" } \n", "note", frame.Event, ""},
	} {
		for _, uploadID := range []string{"", "cat"} {
			e, err := new(vocabulary).parseRemote(uploadID, []byte(test.data), 1<<10)
			want := Encoded{
				payload: []byte(strings.Trim(test.data, " \t\r\n")), class: test.class, action: test.action, uploadID: test.uploadID,
			}
			if uploadID != "" {
				want.uploadID = uploadID
			}
			if err != nil || string(e.payload) != string(want.payload) || e.class != want.class ||
				e.action != want.action || e.uploadID != want.uploadID {
				t.Errorf("%s, sent to %q: %+v, %v", test.data, uploadID, e, err)
			}
		}
	}
}

func TestParseRemote_Refuses(t *testing.T) {
	for _, test := range []struct{ data, field string }{
		{``, ""},
		{` `, ""},
		{`[]`, ""},
		{`{"action":"note"`, ""},
		{`{"action":"note"}{}`, ""},
		{"{\"action\":\"note\",\"a\":\"\xff\"}", ""},
		{`{"action":"note","a":"` + strings.Repeat("a", 1<<10) + `"}`, ""},
		{`{}`, "action"},
		{`{"Action":"note"}`, "action"},
		{`{"action":null}`, "action"},
		{`{"action":["note"]}`, "action"},
		{`{"action":"","a":1}`, "action"},
		{`{"action":"","action":"note"}`, "action"},
		{`{"action":"note","action":"note"}`, "action"},
		{`{"action":"note","acti\u006fn":"pong"}`, "action"},
		{`{"action":"p\u006fng"}`, "action"},
		{`{"action":"auth_success","user_id":"ann"}`, "action"},
		{`{"action":"note","offset":null}`, "offset"},
		{`{"offset":1,"action":"note"}`, "offset"},
		{`{"action":"note","skipped":0}`, "skipped"},
		{`{"action":"note","upload_id":null}`, "upload_id"},
		{`{"action":"note","upload_id":""}`, "upload_id"},
		{`{"action":"note","upload_id":["cat"]}`, "upload_id"},
		{`{"action":"note","upload_id":"dog"}`, "upload_id"},
		{`{"action":"note","upload_id":"cat","upload_id":"dog"}`, "upload_id"},
		{`{"action":"upload_completed","upload_id":"dog"}`, "upload_id"},
		{`{"action":"upload_progress","payload":{"upload_id":"dog"}}`, "payload.upload_id"},
		{`{"payload":{"upload_id":"dog"},"action":"upload_progress"}`, "payload.upload_id"},
		{`{"action":"upload_progress","payload":{"upload_id":"cat","upload_id":"dog"}}`, "payload.upload_id"},
		{`{"action":"upload_progress","payload":{"upload_id":"dog"},"payload":{"upload_id":"cat"}}`, "payload"},
		{`{"action":"upload_progress","payload":{"upload_id":7}}`, "payload.upload_id"},
		{`{"action":"upload_progress","payload":{"upload_id":"dog"},"upload_id":"cat"}`, "payload.upload_id"},
	} {
		e, err := new(vocabulary).parseRemote("cat", []byte(test.data), 1<<10)
		var invalid *InvalidError
		if e.payload != nil || !errors.As(err, &invalid) || invalid.Field != test.field {
			t.Errorf("%.80s: %+v, %v, want an error about %q", test.data, e, err, test.field)
		}
	}
}

// Without an upload that the message is sent to, the ids in it must still be one and the same.
func TestParseRemote_RefusesTwoUploads(t *testing.T) {
	for _, data := range []string{
		`{"action":"note","upload_id":"cat","upload_id":"dog"}`,
		`{"action":"upload_progress","upload_id":"cat","payload":{"upload_id":"dog"}}`,
	} {
		if _, err := new(vocabulary).parseRemote("", []byte(data), 1<<10); err == nil {
			t.Errorf("%s was accepted", data)
		}
	}
}

// A client finds the upload at the top level, or with the same id in the payload; otherwise shoal.v1 adds it.
func TestParse_FindsNamedUpload(t *testing.T) {
	for data, want := range map[string]bool{
		`{"action":"x"}`:                                                     false,
		`{"action":"x","upload_id":"cat"}`:                                   true,
		"{ \"action\":\"x\", \"upload_id\" : \"c\\u0061t\" }":                true,
		`{"action":"x","payload":{"a":{"upload_id":"cat"}}}`:                 false,
		`{"action":"x","payload":{"a":[1,{}],"upload_id":"cat"}}`:            true,
		`{"action":"x","payload":{"upload_id":"dog"}}`:                       false,
		`{"action":"x","payload":[{"upload_id":"cat"}],"n":"upload_id"}`:     false,
		`{"action":"x","other":{"upload_id":"cat"},"payload":{"b":"}"}}`:     false,
		`{"action":"x","text":"\"upload_id\":","n":["upload_id"]}`:           false,
		`{"action":"upload_progress","payload":{"upload_id":"cat"}}`:         true,
		`{"action":"upload_progress","upload_id":"cat","payload":{"n":[0]}}`: true,
		`{"action":"upload_failed"}`:                                         false,
	} {
		e, err := new(vocabulary).parseRemote("cat", []byte(data), 1<<10)
		if err != nil || (e.names == "cat") != want {
			t.Errorf("%s: names %q, %v", data, e.names, err)
		}
		f := e.frame("cat", Position{Epoch: "e", Offset: 7})
		if added := bytes.Contains(f.AppendPayload(nil, VariantV1, 0), []byte(`,"offset":7,"upload_id":"cat"`)); added == want {
			t.Errorf("%s: the upload is added: %v", data, added)
		}
	}
}

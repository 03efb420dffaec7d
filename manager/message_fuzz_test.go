package manager

import (
	"bytes"
	"encoding/json"
	"maps"
	"testing"
	"unicode/utf8"

	"github.com/shoal-go/shoal/internal/strictjson"
)

// FuzzParseRemote verifies three properties of parseRemote, whose input is untrusted: it finds the same members as
// encoding/json; every message it accepts is one object that can be given an offset, for the upload it was sent to; and it accepts
// every message that Parse accepts, with the same result, because otherwise nodes would drop each other's messages.
func FuzzParseRemote(f *testing.F) {
	for _, file := range []string{
		"upload_progress.json", "upload_progress_full.json", "upload_completed.json", "upload_failed.json",
	} {
		data := []byte(golden(f, file))
		f.Add("", data)
		f.Add("up-1", data)
	}
	f.Add("up-1", []byte(` {"action":"note","a":{"a":[null,true,1e9,"\ud800"]},"payload":{"upload_id":"up-2"}}`))
	f.Add("", []byte(`{"acti\u006fn":"upload_progress","payload":{"upload_id":"\u0061"},"upload_id":"a"}`))
	f.Add("a", []byte("{\"\":[{}, \"]}\\\"\", [[]] ],\"action\":\"x\"\t,\"n\":-1.5e-7\r\n}"))

	f.Fuzz(func(t *testing.T, uploadID string, data []byte) {
		input := bytes.Clone(data)
		e, err := new(vocabulary).parseRemote(uploadID, data, len(data))
		if !bytes.Equal(input, data) {
			t.Fatal("the input was changed")
		}
		if (err != nil) != (e.payload == nil) || err != nil && !utf8.ValidString(err.Error()) {
			t.Fatalf("%q beside %q", e.payload, err)
		}
		if err == nil {
			compareAccepted(t, uploadID, e)
		}
		compareFields(t, data)
		compareParsed(t, uploadID, data)
	})
}

// compareFields compares the members with encoding/json, in which the last field of a name counts.
func compareFields(t *testing.T, data []byte) {
	t.Helper()
	data = bytes.Trim(data, " \t\r\n")
	want := make(map[string]json.RawMessage)
	if len(data) == 0 || data[0] != '{' || json.Unmarshal(data, &want) != nil {
		return
	}
	got := make(map[string]json.RawMessage)
	var members strictjson.Members
	strictjson.Walk(data, "", &members, nil)
	for m := range members.All() {
		got[string(m.Name)] = data[m.From:m.To]
	}
	if utf8.Valid(data) && !maps.EqualFunc(got, want, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
		t.Fatalf("%q has the members %q, want %q", data, got, want)
	}
}

func compareAccepted(t *testing.T, uploadID string, e Encoded) {
	t.Helper()
	p := e.payload
	if !utf8.Valid(p) || !json.Valid(p) || p[0] != '{' || p[len(p)-1] != '}' || !bytes.ContainsRune(p, ':') {
		t.Fatalf("%q is not one object with a field", p)
	}
	if e.action == "" || reserved(e.action) || (e.class != ClassEvent) != known(e.action) || uploadID != "" && e.uploadID != uploadID {
		t.Fatalf("%q, sent to %q, is taken for %+v", p, uploadID, e)
	}
	again, err := new(vocabulary).parseRemote(uploadID, p, len(p))
	if err != nil || again.action != e.action || again.uploadID != e.uploadID {
		t.Fatalf("looked at again: %+v, %v, want %+v", again, err, e)
	}
}

func compareParsed(t *testing.T, uploadID string, data []byte) {
	t.Helper()
	parsed, err := Parse(uploadID, data, noon)
	if err != nil || uploadID != "" && CheckID("upload_id", uploadID) != nil {
		return
	}
	e, err := new(vocabulary).parseRemote(uploadID, parsed.payload, len(parsed.payload))
	want := parsed.uploadID
	if want == "" {
		want = uploadID
	}
	if err != nil || !bytes.Equal(e.payload, parsed.payload) || e.class != parsed.class || e.action != parsed.action ||
		e.uploadID != want {
		t.Fatalf("Parse made %q of it, and parseRemote %+v, %v", parsed.payload, e, err)
	}
}

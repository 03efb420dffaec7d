package server

import (
	"encoding/json"
	"reflect"
	"testing"
)

var plainMessages = []string{
	`{}`, ` { } `, `{"type":"auth","token":"a.b-c_d"}`, `{"action":"subscribe_upload","upload_id":"a"}`,
	`{"action": "resume", "uploads": {"a": {"epoch": "e", "offset": 18}, "b": {"offset": 0}, "c": {}}}`,
	"\t{\"action\":\"subscribe_upload\",\r\n\"upload_id\":\"<&>\",\"since\":{\"offset\":9999999999999999999,\"epoch\":\"\"}}\n",
}

var otherMessages = []string{
	``, ` `, `null`, `{`, `}`, `{}}`, `{} x`, `[]`, `"{}"`, `{,}`, `{"action"}`, `{"action":}`, `{"action":"a",}`,
	`{"action":"a" "type":"b"}`, `{"action":"a","action":"b"}`, `{"Action":"a"}`, `{"other":1}`, `{"action":1}`,
	`{"action":null}`, `{"action":"\u0061"}`, `{"action":"ä"}`, "{\"action\":\"\x00\"}", "{\"action\":\"\xff\"}", `{"action":"a`,
	`{"since":null}`, `{"since":{"offset":01}}`, `{"since":{"offset":-1}}`, `{"since":{"offset":1.0}}`, `{"since":{"offset":1e3}}`,
	`{"since":{"offset":99999999999999999999}}`, `{"since":{"offset":}}`, `{"since":{"offset":1,"offset":2}}`,
	`{"since":{"at":1}}`, `{"since":[]}`, `{"uploads":null}`, `{"uploads":{"a":null}}`, `{"uploads":{"a":{},"a":{"offset":1}}}`,
	"{\"action\":\"a\"}\x00", "\x00", "{}\x00",
}

func TestDecodePlain(t *testing.T) {
	for _, m := range plainMessages {
		if !checkPlain(t, m) {
			t.Errorf("%s: is left to encoding/json", m)
		}
	}
	for _, m := range otherMessages {
		if checkPlain(t, m) {
			t.Errorf("%s: is taken for plain", m)
		}
	}
}

// FuzzDecodePlain decodes what encoding/json would decode to the same, and leaves it all else.
func FuzzDecodePlain(f *testing.F) {
	for _, m := range append(plainMessages, otherMessages...) {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m string) { checkPlain(t, m) })
}

// checkPlain reports whether the message is decoded, and complains if encoding/json sees something else in it.
func checkPlain(t *testing.T, m string) bool {
	t.Helper()
	var got, want request
	if !decodePlain([]byte(m), &got) {
		return false
	}
	if err := json.Unmarshal([]byte(m), &want); err != nil {
		t.Errorf("%s: decoded, but for encoding/json it is wrong: %v", m, err)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: decoded as %+v, by encoding/json as %+v", m, got, want)
	}
	return true
}

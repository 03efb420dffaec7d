package server

import (
	"encoding/json"
	"reflect"
	"testing"
)

// A lone surrogate and invalid UTF-8 are refused; encoding/json would turn each of them into U+FFFD.
func TestDecodeString(t *testing.T) {
	for text, want := range map[string]string{
		`"a"`: "a", `"ä\u00e4"`: "ää", `"\ud83d\ude00"`: "😀", `"\\ud800"`: `\ud800`, `"\ufffd"`: "\ufffd", `"\n\""`: "\n\"",
	} {
		if got, err := decodeString([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		`"\ud800"`, `"\udc00"`, `"\ud800x"`, `"\ud800\n"`, `"\ud800\ud800"`, `"\ud83d\u0041"`, "\"\xed\xa0\xbd\"", "\"\xc0\x80\"",
		"\"\xff\"", "\"\\n\xff\"", `1`, `null`, `{}`,
	} {
		if got, err := decodeString([]byte(text)); err == nil {
			t.Errorf("%s: decoded as %q", text, got)
		}
	}
}

func TestDecodeObject(t *testing.T) {
	o, err := decodeObject([]byte(" {\"a\" : [1,{\"b\":\"]\"}] ,\"\\u0061\":\"x\\\"}\",\"n\":-1.5e3}\r\n"))
	if err != nil || len(o) != 3 || o[0].name != "a" || o[1].name != "a" || o[2].name != "n" ||
		string(o[0].value) != `[1,{"b":"]"}]` || string(o[1].value) != `"x\"}"` || string(o[2].value) != "-1.5e3" {
		t.Errorf("decoded as %q, %v", o, err)
	}
	if o.duplicate() == nil || o.duplicate("a") == nil || o.duplicate("n") != nil {
		t.Error("a duplicate is not found, or found where there is none")
	}
	for _, text := range []string{``, ` `, `null`, `[]`, `{`, `{}}`, `{} x`, `{"a"}`, `{"a":1,}`, `{"\ud800":1}`, "\xef\xbb\xbf{}"} {
		if _, err := decodeObject([]byte(text)); err == nil {
			t.Errorf("%s: accepted", text)
		}
	}
}

// FuzzDecodeObject agrees with encoding/json about objects without duplicates.
func FuzzDecodeObject(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":{"b":[1,2,{"c":"}"}]}}`, `{"a":"\\"}`, `{"\ud800":1}`, `{"a":1,"a":2}`, ` { "a" : null } `} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := decodeObject([]byte(text))
		var want map[string]json.RawMessage
		wantErr := json.Unmarshal([]byte(text), &want)
		if err != nil || o.duplicate() != nil {
			return
		}
		if wantErr != nil || want == nil {
			t.Fatalf("%q: decoded, but for encoding/json it is wrong: %v", text, wantErr)
		}
		got := map[string]json.RawMessage{}
		for _, m := range o {
			got[m.name] = m.value
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: decoded as %q, by encoding/json as %q", text, got, want)
		}
	})
}

package strictjson

import (
	"encoding/json"
	"reflect"
	"testing"
)

// A lone surrogate and invalid UTF-8 are refused; encoding/json would turn each of them into U+FFFD.
func TestString_RefusesInvalidUnicode(t *testing.T) {
	for text, want := range map[string]string{
		`"a"`: "a", `"ä\u00e4"`: "ää", `"\ud83d\ude00"`: "😀", `"\\ud800"`: `\ud800`, `"\ufffd"`: "\ufffd", `"\n\""`: "\n\"",
	} {
		if got, err := String([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		`"\ud800"`, `"\udc00"`, `"\ud800x"`, `"\ud800\n"`, `"\ud800\ud800"`, `"\ud83d\u0041"`, "\"\xed\xa0\xbd\"", "\"\xc0\x80\"",
		"\"\xff\"", "\"\\n\xff\"", `1`, `null`, `{}`,
	} {
		if got, err := String([]byte(text)); err == nil {
			t.Errorf("%s: decoded as %q", text, got)
		}
	}
}

func TestDecode_KeepsMembersInOrder(t *testing.T) {
	o, err := Decode([]byte(" {\"a\" : [1,{\"b\":\"]\"}] ,\"\\u0061\":\"x\\\"}\",\"n\":-1.5e3}\r\n"))
	if err != nil || len(o) != 3 || o[0].Name != "a" || o[1].Name != "a" || o[2].Name != "n" ||
		string(o[0].Value) != `[1,{"b":"]"}]` || string(o[1].Value) != `"x\"}"` || string(o[2].Value) != "-1.5e3" {
		t.Errorf("decoded as %q, %v", o, err)
	}
	if o.Duplicate() == nil || o.Duplicate("a") == nil || o.Duplicate("n") != nil {
		t.Error("a duplicate is not found, or found where there is none")
	}
	for _, text := range []string{``, ` `, `null`, `[]`, `{`, `{}}`, `{} x`, `{"a"}`, `{"a":1,}`, `{"\ud800":1}`, "\xef\xbb\xbf{}"} {
		if _, err := Decode([]byte(text)); err == nil {
			t.Errorf("%s: accepted", text)
		}
	}
}

// FuzzDecode agrees with encoding/json about objects without duplicates.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":{"b":[1,2,{"c":"}"}]}}`, `{"a":"\\"}`, `{"\ud800":1}`, `{"a":1,"a":2}`, ` { "a" : null } `} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := Decode([]byte(text))
		var want map[string]json.RawMessage
		wantErr := json.Unmarshal([]byte(text), &want)
		if err != nil || o.Duplicate() != nil {
			return
		}
		if wantErr != nil || want == nil {
			t.Fatalf("%q: decoded, but for encoding/json it is wrong: %v", text, wantErr)
		}
		if n := Len([]byte(text)); n != len(o) {
			t.Fatalf("%q: Len is %d, want %d", text, n, len(o))
		}
		got := map[string]json.RawMessage{}
		for _, m := range o {
			got[m.Name] = m.Value
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: decoded as %q, by encoding/json as %q", text, got, want)
		}
	})
}

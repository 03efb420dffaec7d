package strictjson

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// pair is a member as encoding/json reads it.
type pair struct{ name, value string }

// pairsOf returns the members of an object, duplicates among them, nil for another value.
func pairsOf(t *testing.T, text []byte) (all []pair) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return nil
	}
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			t.Fatalf("%q: encoding/json does not read what it finds valid", text)
		}
		all = append(all, pair{name.(string), string(value)}) // names are strings
	}
	return all
}

func wantMembers(t *testing.T, text []byte, got *Members, want []pair) {
	t.Helper()
	i := 0
	for p := range got.All() {
		if i == len(want) || string(p.Name) != want[i].name || string(text[p.From:p.To]) != want[i].value {
			t.Fatalf("%q: member %d is %q: %q, want %q", text, i, p.Name, text[p.From:p.To], want)
		}
		i++
	}
	if i != len(want) || got.Len() != i {
		t.Fatalf("%q: %d members, want %q", text, i, want)
	}
}

// compare compares Walk with encoding/json and unicode/utf8.
func compare(t *testing.T, text []byte) {
	t.Helper()
	var top, nested Members
	valid := json.Valid(text) && utf8.Valid(text)
	if got := Walk(text, "in", &top, &nested); got != valid {
		t.Fatalf("%q: valid: %v, want %v", text, got, valid)
	}
	if got := Walk(text, "", nil, nil); got != valid {
		t.Fatalf("%q: valid without members: %v, want %v", text, got, valid)
	}
	if w := (walker{data: text, anyBytes: true}); w.walk(nil, nil) != json.Valid(text) {
		t.Fatalf("%q: as any bytes it is not what json.Valid finds", text)
	}
	if !valid {
		return
	}
	want := pairsOf(t, text)
	wantMembers(t, text, &top, want)
	var inner []pair
	seen, double := map[string]bool{}, false
	for _, p := range want {
		if p.name == "in" {
			inner = append(inner, pairsOf(t, []byte(p.value))...)
		}
		if seen[p.name] {
			double = true
		}
		seen[p.name] = true
	}
	wantMembers(t, text, &nested, inner)
	if _, found := top.Twice(); found != double {
		t.Fatalf("%q: a duplicate is found: %v, want %v", text, found, !found)
	}
}

// FuzzWalk: Walk agrees with encoding/json and unicode/utf8 about validity and members.
func FuzzWalk(f *testing.F) {
	for _, text := range []string{
		"", " ", "{}", "[]", "null", "true", "false", "nul", "truee", "\ufeff{}", "\v{}", "{}\x00", " \t\r\n{ } \n",
		"0", "-0", "-", "01", "1.", ".5", "1.5", "1e", "1e+", "1E-07", "1e5.5", "+1", "0x1", "1 2", "-1.25e+10,",
		`""`, `"`, `"\`, `"\"`, `"\\"`, `"\u"`, `"\u12"`, `"\u12g4"`, `"\u00e4"`, `"\ud83d\ude00"`, `"\ud800"`, `"\x"`,
		"\"\x1f\"", "\"\x7f\"", "\"\n\"", "\"\xff\"", "\"\xc3\xa4\"", "\"\xed\xa0\xbd\"", "\"\xe2\x82\"", "\"\ufffd\"", "\xff",
		"\"0123456\\\"01234567\"", "\"0123456\x1f\"", "\"ä0123456789\"", "\"01234567ä\"", "\"\x80\xa2\"",
		"[1,]", "[,1]", "[1 2]", "[[],{},[{}]]", "[[1,2],[3]", "[}", "{]", "[1}", `{"a":[1}`, `{"a"}`, `{"a":}`, `{"a":1,}`,
		`{,"a":1}`, `{"a" : 1 , "b":{"c":[{"d":"]}"}]}}`, `{a:1}`, `{"a":1 "b":2}`, `{"a":1}}`, `{"a":1,"a":2}`, `{1:2}`,
		`{"in":{"a":1,"a":2,"in":{"x":0}},"i\u006e":{"b":[{}]},"in":1}`, `{"in":{}`, `{"in":{"a"}}`, `{"in" `, `{"in":`,
		`{"\ud800":1,"\udc00":2}`, "{\"a\xff\":1}",
		`{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1,"10":1,"11":1,"12":1,"13":1,"14":1}`,
		`{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1,"10":1,"11":1,"12":1,"13":1,"1":1}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(compare)
}

// Walk accepts as many levels of nesting as encoding/json, wherever they begin.
func TestWalk_BoundsTheDepth(t *testing.T) {
	for _, around := range []string{"%", `{"a":%}`, `{"in":%}`, `{"in":{"b":%}}`, `[{"a":[%]}]`} {
		for levels := maxDepth - 5; levels <= maxDepth+1; levels++ {
			deep := strings.Repeat("[", levels) + strings.Repeat("]", levels)
			text := []byte(strings.Replace(around, "%", deep, 1))
			if got, want := Walk(text, "in", new(Members), new(Members)), json.Valid(text); got != want {
				t.Errorf("%s with %d levels: %v, want %v", around, levels, got, want)
			}
			compare(t, []byte(strings.Replace(around, "%", strings.Repeat(`{"":`, levels)+"1"+strings.Repeat("}", levels), 1)))
		}
	}
}

const progress = `{"action":"upload_progress","payload":{"upload_id":"0a7e4f5e-20cf-4a0c-9d6c-2f9b9f1c9c1e",` +
	`"status":"analyzing","stage":"vision_analysis","progress_percent":42.5,"message":"Analyzing frame 17 of 40",` +
	`"error_message":null,"description_audit_score":null},"timestamp":"2026-01-31T12:00:00Z"}`

// Walk does not allocate for a usual message.
func TestWalk_DoesNotAllocate(t *testing.T) {
	text := []byte(progress)
	if n := testing.AllocsPerRun(100, func() {
		var top, nested Members
		if !Walk(text, "payload", &top, &nested) {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkWalk(b *testing.B) {
	text := []byte(progress)
	b.Run("Walk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var top, nested Members
			Walk(text, "payload", &top, &nested)
		}
	})
	b.Run("json.Valid and utf8.Valid", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = utf8.Valid(text) && json.Valid(text)
		}
	})
}

func TestLen(t *testing.T) {
	for text, want := range map[string]int{
		``: 0, `1`: 0, `"a,b"`: 0, `null`: 0, `{}`: 0, `[]`: 0, ` [ ] `: 0, `[1]`: 1, `["]",[1,2],{"a":[3,4]}]`: 3,
		` { "a" : 1 , "a" : {"b":2,"c":3} , "}" : [] } `: 3, `[1,2`: 2, `[1,,2]`: 1, `{"a":1,"b"`: 1, `{"a"`: 0, `[`: 0, `{`: 0,
	} {
		if got := Len([]byte(text)); got != want {
			t.Errorf("%s: got %d, want %d", text, got, want)
		}
	}
}

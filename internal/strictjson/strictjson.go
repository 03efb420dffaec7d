// Package strictjson decodes JSON objects from untrusted sources: names are compared exactly, duplicates are found, and
// text that is not valid Unicode is refused.
package strictjson

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/shoal-go/shoal/internal/logs"
)

// Member is one member of a JSON object. value is a part of the object's text.
type Member struct {
	Name  string
	Value []byte
}

// MemberError describes the fault of a member of an object, without repeating its value.
type MemberError struct{ Name, Problem string }

func (e *MemberError) Error() string { return strconv.Quote(logs.Truncate(e.Name)) + " " + e.Problem }

var (
	errNotObject = errors.New("must be one JSON object")
	errBadText   = errors.New("must be valid Unicode, without lone surrogates")
)

// Object is a JSON object with its members in their order. encoding/json decodes escapes only: for the fields of a
// struct it ignores the case of names, lets the last of several equal names win, and replaces invalid text, so
// that two different ids could become one.
type Object []Member

// Decode decodes the outermost level of a JSON object. Names are compared exactly. Duplicates are kept;
// see Object.Duplicate.
func Decode(data []byte) (Object, error) {
	i := skipSpace(data, 0)
	if i == len(data) || data[i] != '{' {
		return nil, errNotObject
	}
	var members Members
	w := walker{data: data, anyBytes: true} // String refuses text that is not UTF-8
	if !w.walk(&members, nil) {
		return nil, errNotObject
	}
	o := make(Object, 0, members.Len())
	for p := range members.All() {
		end, _ := w.text(p.at)
		name, err := String(data[p.at:end])
		if err != nil {
			return nil, &MemberError{"name of a member", err.Error()}
		}
		o = append(o, Member{name, data[p.From:p.To:p.To]})
	}
	return o, nil
}

// Get returns the value of a member.
func (o Object) Get(name string) (value []byte, given bool) {
	for i := range o {
		if o[i].Name == name {
			return o[i].Value, true
		}
	}
	return nil, false
}

// Duplicate returns an error if two members have the same name, which must be one of names if any are given.
func (o Object) Duplicate(names ...string) error {
	var seen map[string]struct{} // nil for the few members of most objects, which are compared with each other
	if len(o) > usualMembers {
		seen = make(map[string]struct{}, len(o))
	}
	for i := range o {
		name := o[i].Name
		_, twice := seen[name]
		if seen != nil {
			seen[name] = struct{}{}
		} else {
			_, twice = o[:i].Get(name)
		}
		if twice && (len(names) == 0 || slices.Contains(names, name)) {
			return &MemberError{name, "must not be given twice"}
		}
	}
	return nil
}

// Only returns an error if a member is not one of names, or is given twice.
func (o Object) Only(names ...string) error {
	for i := range o {
		if !slices.Contains(names, o[i].Name) {
			return &MemberError{o[i].Name, "is unknown; known are " + strings.Join(names, ", ")}
		}
	}
	return o.Duplicate()
}

// Text returns a member that is a string; "" if it is not given.
func (o Object) Text(name string) (string, error) {
	value, given := o.Get(name)
	if !given {
		return "", nil
	}
	text, err := String(value)
	if err != nil {
		return "", &MemberError{name, err.Error()}
	}
	return text, nil
}

// Kind names the type of a JSON value for an error.
func Kind(value []byte) string {
	switch value[0] {
	case '"':
		return "string"
	case '{':
		return "object"
	case '[':
		return "array"
	case 't', 'f':
		return "bool"
	case 'n':
		return "null"
	}
	return "number"
}

// String decodes a valid JSON value that must be a string of valid Unicode.
func String(value []byte) (string, error) {
	if value[0] != '"' {
		return "", errors.New("has the wrong type: " + Kind(value))
	}
	inner := value[1 : len(value)-1]
	escaped := false
	for i := 0; i < len(inner); i++ {
		if inner[i] != '\\' {
			continue
		}
		escaped = true
		i++ // at the escaped character
		if inner[i] != 'u' {
			continue
		}
		r := hexRune(inner[i+1:])
		i += 4
		if !utf16.IsSurrogate(r) {
			continue
		}
		if len(inner) < i+7 || inner[i+1] != '\\' || inner[i+2] != 'u' ||
			utf16.DecodeRune(r, hexRune(inner[i+3:])) == utf8.RuneError {
			return "", errBadText
		}
		i += 6
	}
	switch {
	case !utf8.Valid(inner):
		return "", errBadText
	case !escaped:
		return string(inner), nil
	}
	var text string
	err := json.Unmarshal(value, &text)
	return text, err
}

// hexRune decodes four hexadecimal digits, which are valid.
func hexRune(digits []byte) rune {
	n, _ := strconv.ParseUint(string(digits[:4]), 16, 16)
	return rune(n)
}

// Strings decodes a valid JSON value that must be an array of strings.
func Strings(value []byte) ([]string, error) {
	var raw []json.RawMessage
	if value[0] != '[' || json.Unmarshal(value, &raw) != nil {
		return nil, errors.New("has the wrong type: " + Kind(value))
	}
	texts := make([]string, len(raw))
	for i := range raw {
		var err error
		if texts[i], err = String(raw[i]); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// Len returns the number of elements of an array, or of members of an object, at the outermost level. Other values have
// none, and in a text that is not valid, those ahead of the fault count. It allocates nothing, so it may precede the
// decoding of a large text, which takes many times the memory.
func Len(data []byte) (n int) {
	i := skipSpace(data, 0)
	if i == len(data) || data[i] != '{' && data[i] != '[' {
		return 0
	}
	w, object := walker{data: data, anyBytes: true}, data[i] == '{'
	for i = skipSpace(data, i+1); i < len(data) && data[i] != '}' && data[i] != ']'; n++ {
		if object {
			end, _ := w.text(i)
			i = w.colon(end)
		}
		if i != bad {
			i = w.skip(i, 1)
		}
		if i == bad {
			return n
		}
		if i = skipSpace(data, i); i < len(data) && data[i] == ',' {
			i = skipSpace(data, i+1)
		}
	}
	return n
}

func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\t' || data[i] == '\n' || data[i] == '\r') {
		i++
	}
	return i
}

package manager

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reader hands out the fields of a JSON object, each once, and keeps the first complaint. Names are matched
// exactly, which encoding/json does not do for the fields of a struct.
type reader struct {
	// path is the prefix of a field's name in an error: "" or "payload.".
	path string
	// fields holds the fields that have not been read yet.
	fields map[string]json.RawMessage
	err    error
}

// takeApart returns a reader of valid JSON. An object that names a field twice is refused, since two
// receivers need not agree on which one counts.
func takeApart(path string, data []byte) (*reader, error) {
	r := &reader{path: path, fields: make(map[string]json.RawMessage)}
	if data[0] != '{' {
		return nil, &InvalidError{"", "must be a JSON object"}
	}
	eachField(data, func(key, value []byte) bool {
		name := string(key)
		if _, twice := r.fields[name]; twice {
			r.refuse(name, "stands there twice")
		}
		r.fields[name] = value
		return r.err == nil
	})
	return r, r.err
}

func (r *reader) keep(err error) {
	if r.err == nil {
		r.err = err
	}
}

// refuse complains about a field. Its name may be a client's invention, so it is cut and escaped.
func (r *reader) refuse(name, problem string) {
	q := strconv.Quote(abbreviated(name))
	r.keep(&InvalidError{r.path + q[1:len(q)-1], problem})
}

// refuseRest reports the fields that have not been read as unknown.
func (r *reader) refuseRest() {
	for _, name := range slices.Sorted(maps.Keys(r.fields)) {
		r.refuse(name, "is not a field of this message")
	}
}

func (r *reader) take(name string) (json.RawMessage, bool) {
	value, given := r.fields[name]
	delete(r.fields, name)
	return value, given
}

// need is like take, for a required field.
func (r *reader) need(name string) (json.RawMessage, bool) {
	value, given := r.take(name)
	if !given {
		r.refuse(name, "is missing")
	}
	return value, given
}

func (r *reader) text(name string) string {
	if value, given := r.need(name); given {
		return r.decodeText(name, value)
	}
	return ""
}

func (r *reader) number(name string) float64 {
	if value, given := r.need(name); given {
		return r.decodeNumber(name, value)
	}
	return 0
}

func (r *reader) textOrNull(name string) *string {
	value, given := r.take(name)
	if !given || isNull(value) {
		return nil
	}
	s := r.decodeText(name, value)
	return &s
}

func (r *reader) numberOrNull(name string) *float64 {
	value, given := r.take(name)
	if !given || isNull(value) {
		return nil
	}
	v := r.decodeNumber(name, value)
	return &v
}

// id returns an id that may be left out, which is not the same as an empty one.
func (r *reader) id(name string) string {
	value, given := r.take(name)
	if !given {
		return ""
	}
	id := r.decodeText(name, value)
	r.keep(CheckID(r.path+name, id))
	return id
}

// time returns a timestamp that may be left out: the zero time then. One without a zone is UTC: Python's
// utcnow().isoformat() writes it so.
func (r *reader) time(name string) time.Time {
	value, given := r.take(name)
	if !given {
		return time.Time{}
	}
	text := r.decodeText(name, value)
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t, err = time.Parse(time.RFC3339, text+"Z")
	}
	// time.Parse also accepts an hour of one digit and a decimal comma, which RFC 3339 does not allow.
	if err != nil || text[len("2026-01-31T12")] != ':' || strings.Contains(text, ",") {
		r.refuse(name, "must be a time as in RFC 3339, for example 2026-01-31T12:00:00Z")
	}
	return t
}

// object returns a reader of an object that must be there; an empty one if it is not.
func (r *reader) object(name string) *reader {
	path := r.path + name + "."
	value, given := r.need(name)
	if given && value[0] == '{' {
		inner, err := takeApart(path, value)
		if err == nil {
			return inner
		}
		r.keep(err)
	}
	if given {
		r.refuse(name, "must be an object")
	}
	return &reader{path: path}
}

func (r *reader) decodeText(name string, value json.RawMessage) string {
	text, ok := textOf(value)
	if !ok {
		r.refuse(name, "must be a string")
	}
	return string(text)
}

func (r *reader) decodeNumber(name string, value json.RawMessage) float64 {
	if value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		r.refuse(name, "must be a number")
		return 0
	}
	// Beyond the range of a float64 this is an infinity, which is refused as every number above 100 is.
	v, _ := strconv.ParseFloat(string(value), 64)
	return v
}

func isNull(value json.RawMessage) bool { return string(value) == "null" }

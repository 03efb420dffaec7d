package manager

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/shoal-go/shoal/internal/strictjson"
)

// object reads the members of the JSON object in data by name. Names are matched exactly, which encoding/json does not
// do for the fields of a struct. object keeps the first problem.
type object struct {
	strictjson.Members
	// path is the prefix of a member's name in an error: "" or "payload.".
	path string
	data []byte
	err  error
}

// unique refuses a name that occurs twice, since two receivers need not agree on which one counts.
func (o *object) unique() {
	if name, found := o.Twice(); found {
		o.refuse(string(name), "stands there twice")
	}
}

// value returns the value of a member, or nil.
func (o *object) value(name string) []byte {
	if m := o.Find(name); m != nil {
		return o.data[m.From:m.To]
	}
	return nil
}

// string returns the text of a member, if it is a string.
func (o *object) string(name string) (text []byte, ok bool) {
	if value := o.value(name); value != nil {
		return textOf(value)
	}
	return nil, false
}

func (o *object) keep(err error) {
	if o.err == nil {
		o.err = err
	}
}

// refuse records a problem with a member. Its name may be client input, so it is truncated and escaped.
func (o *object) refuse(name, problem string) {
	q := strconv.Quote(abbreviated(name))
	o.keep(&InvalidError{o.path + q[1:len(q)-1], problem})
}

// action reads the action. Frequent ones need no copy.
func (o *object) action() string {
	text := o.text("action")
	switch string(text) {
	case actionProgress:
		return actionProgress
	case actionCompleted:
		return actionCompleted
	case actionFailed:
		return actionFailed
	}
	action := string(text)
	switch {
	case o.err != nil:
	case action == "":
		o.refuse("action", "must not be empty")
	case reserved(action):
		o.refuse("action", fmt.Sprintf("is %q, which is reserved for the protocol", action))
	}
	return action
}

// need returns the value of a required member, or nil.
func (o *object) need(name string) []byte {
	value := o.value(name)
	if value == nil {
		o.refuse(name, "is missing")
	}
	return value
}

// text returns a required string.
func (o *object) text(name string) []byte {
	value := o.need(name)
	if value == nil {
		return nil
	}
	text, ok := textOf(value)
	if !ok {
		o.refuse(name, "must be a string")
	}
	return text
}

// textOrNull checks a string that may be null or missing, and reports whether it is missing.
func (o *object) textOrNull(name string) (missing bool) {
	value := o.value(name)
	if value != nil && value[0] != '"' && !isNull(value) {
		o.refuse(name, "must be a string")
	}
	return value == nil
}

// percent checks a required number from 0 to 100.
func (o *object) percent(name string) {
	if value := o.need(name); value != nil {
		o.checkPercent(name, value)
	}
}

// percentOrNull checks a number from 0 to 100 that may be null or missing, and reports whether it is missing.
func (o *object) percentOrNull(name string) (missing bool) {
	value := o.value(name)
	if value != nil && !isNull(value) {
		o.checkPercent(name, value)
	}
	return value == nil
}

func (o *object) checkPercent(name string, value []byte) {
	if value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		o.refuse(name, "must be a number")
		return
	}
	// Beyond the range of a float64 this is an infinity.
	if v, _ := strconv.ParseFloat(string(value), 64); !(v >= 0 && v <= 100) {
		o.refuse(name, "must be a number from 0 to 100")
	}
}

// id returns an upload id that may be left out, which is not the same as an empty one. known is an id that has been
// validated and needs no copy.
func (o *object) id(name, known string) string {
	value := o.value(name)
	if value == nil {
		return ""
	}
	text, ok := textOf(value)
	if !ok {
		o.refuse(name, "must be a string")
		return ""
	}
	if known != "" && string(text) == known {
		return known
	}
	id := string(text)
	o.keep(CheckID(o.path+name, id))
	return id
}

// timestamp checks the member "timestamp" and returns the JSON that replaces it, or "" if it is right as it is. A
// missing one becomes now. One without a zone is UTC: Python's utcnow().isoformat() writes it so.
func (o *object) timestamp(now time.Time) string {
	const name = "timestamp"
	t := now
	value := o.value(name)
	if value != nil {
		text, ok := textOf(value)
		if !ok {
			o.refuse(name, "must be a string")
			return ""
		}
		var err error
		if t, err = time.Parse(time.RFC3339, string(text)); err != nil {
			t, err = time.Parse(time.RFC3339, string(text)+"Z")
		}
		// time.Parse also accepts an hour of one digit and a decimal comma, which RFC 3339 does not allow.
		if err != nil || text[len("2026-01-31T12")] != ':' || bytes.IndexByte(text, ',') >= 0 {
			o.refuse(name, "must be a time as in RFC 3339, for example 2026-01-31T12:00:00Z")
			return ""
		}
		if text[len(text)-1] == 'Z' {
			return ""
		}
	}
	t, err := inUTC(t)
	o.keep(err)
	var room [40]byte
	return string(appendTime(room[:0], t))
}

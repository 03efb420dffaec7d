package manager

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/shoal-go/shoal/internal/strictjson"
)

// Parse validates a JSON message. uploadID is the upload that it is sent to, or "" if it is
// sent to a user; now is the timestamp of a message that has none. data is copied. Parse does not block.
//
// upload_progress, upload_completed and upload_failed must match the protocol's schema. Missing optional members are
// added, and the timestamp is written in UTC. All other members, and every message with an application's own action,
// are kept byte for byte, except for white space around the message.
//
// Every error is an *InvalidError that names the field. The caller must bound the size of data.
//
// The vocabulary of a manager, its Options.Classes, Statuses and Stages, applies when the message is sent;
// Manager.Parse applies it at once.
func Parse(uploadID string, data []byte, now time.Time) (Encoded, error) {
	e, err := new(vocabulary).parse(uploadID, data, &now)
	e.general = err == nil
	return e, err
}

// Parse is like the function Parse for messages that this manager will send: it also applies its vocabulary. It does
// not block, and every error is an *InvalidError.
func (m *Manager) Parse(uploadID string, data []byte, now time.Time) (Encoded, error) {
	if err := m.checkCreated(); err != nil {
		return Encoded{}, err
	}
	return m.vocabulary.parse(uploadID, data, &now)
}

// parseRemote validates a message that arrived through the broker, from another node or from a publisher outside this
// module. It checks only the members that delivery requires, because it runs for every message on every node; the
// publisher is responsible for the others. maxBytes bounds the message. data is not copied.
func (v *vocabulary) parseRemote(uploadID string, data []byte, maxBytes int) (Encoded, error) {
	if len(data) > maxBytes {
		return Encoded{}, tooLarge(len(data), maxBytes)
	}
	return v.parse(uploadID, data, nil)
}

// parse validates a message. published is nil for a message that another node or application has published; otherwise
// the message must match its schema, and is completed, with *published as its timestamp if it has none.
func (v *vocabulary) parse(uploadID string, data []byte, published *time.Time) (Encoded, error) {
	data = bytes.Trim(data, " \t\r\n")
	top, payload := object{data: data}, object{path: "payload.", data: data}
	if !strictjson.Walk(data, "payload", &top.Members, &payload.Members) {
		return Encoded{}, notJSON(data)
	}
	if data[0] != '{' {
		return Encoded{}, &InvalidError{"", "must be a JSON object"}
	}
	top.unique()
	e := Encoded{payload: data, action: top.action()}
	if e.action == actionProgress {
		payload.unique()
	}
	for _, name := range []string{"offset", "skipped"} {
		if top.value(name) != nil {
			top.refuse(name, "is a field that the server adds; a published message must not have it")
		}
	}
	top.keep(payload.err)
	if top.err != nil {
		return Encoded{}, top.err
	}
	if err := e.readIDs(uploadID, &top, &payload, published != nil); err != nil {
		return Encoded{}, err
	}
	err := v.readBody(&e, &top, &payload, published)
	return e, err
}

// readBody classifies a message and, if it is published here, checks and completes it.
func (v *vocabulary) readBody(e *Encoded, top, payload *object, published *time.Time) (err error) {
	switch {
	case !known(e.action):
		if e.class, e.stateKey, err = v.classify(e.action, top, payload); err == nil && published != nil {
			e.payload = bytes.Clone(e.payload)
		}
	case e.action == actionProgress:
		e.class = ClassState
		if published != nil {
			e.payload, e.stamp, err = v.completeProgress(e.uploadID, top, payload, *published)
		}
	default:
		e.class = ClassTerminal
		if published != nil {
			e.payload, e.stamp, err = completeTerminal(e.action, e.uploadID, top, *published)
		}
	}
	switch {
	case err != nil:
		*e = Encoded{}
	case published != nil && known(e.action):
		e.names = e.uploadID
	}
	return err
}

// notJSON returns the error of data that is not a JSON text in UTF-8.
func notJSON(data []byte) error {
	if !utf8.Valid(data) {
		return &InvalidError{"", "must be valid UTF-8"}
	}
	problem := "is not valid JSON"
	var syntax *json.SyntaxError
	if errors.As(json.Unmarshal(data, new(json.RawMessage)), &syntax) {
		problem += fmt.Sprintf(": %v, at byte %d", syntax, syntax.Offset)
	}
	return &InvalidError{"", problem}
}

// readIDs reads the upload ids of a message that is sent to uploadID, or to a user. All that are given must be equal,
// except the one in the payload of an application's own message, which is not checked. If required is set, a message
// with an action of the protocol must have an upload.
func (e *Encoded) readIDs(uploadID string, top, payload *object, required bool) error {
	e.uploadID = uploadID
	name, of := "upload_id", top
	if e.action == actionProgress {
		name, of = "payload.upload_id", payload
		if id := payload.id("upload_id", uploadID); id != "" {
			e.names = id
			if payload.err == nil {
				e.uploadID, payload.err = sameUpload(name, id, e.uploadID)
			}
		}
	} else if text, ok := payload.string("upload_id"); ok && string(text) == uploadID {
		e.names = uploadID
	}
	if id := top.id("upload_id", e.uploadID); id != "" {
		e.names = id
		if top.err == nil {
			e.uploadID, top.err = sameUpload("upload_id", id, e.uploadID)
		}
	}
	if required && known(e.action) && e.uploadID == "" {
		of.keep(CheckID(name, ""))
	}
	top.keep(payload.err)
	return top.err
}

// completeProgress checks an upload_progress and returns a copy that has all members of the schema.
func (v *vocabulary) completeProgress(
	uploadID string, top, payload *object, now time.Time,
) (data []byte, stamp uint32, err error) {
	if nested := top.need("payload"); len(nested) > 0 && nested[0] != '{' {
		top.refuse("payload", "must be an object")
	}
	if top.err != nil {
		return nil, 0, top.err
	}
	if status := payload.text("status"); payload.err == nil {
		payload.keep(v.statuses.check("payload.status", status))
	}
	if stage := payload.text("stage"); payload.err == nil {
		payload.keep(v.stages.check("payload.stage", stage))
	}
	payload.percent("progress_percent")
	payload.text("message")
	var c completion
	nested := top.Find("payload")
	if payload.value("upload_id") == nil {
		c.insert(nested.From+1, `"upload_id":`, uploadID, ",")
	}
	if payload.textOrNull("error_message") {
		c.insert(nested.To-1, `,"error_message":null`, "", "")
	}
	if payload.percentOrNull("description_audit_score") {
		c.insert(nested.To-1, `,"description_audit_score":null`, "", "")
	}
	top.keep(payload.err)
	return c.complete(top, now)
}

// completeTerminal checks an upload_completed or upload_failed and returns a copy that has all members of the schema.
func completeTerminal(
	action, uploadID string, top *object, now time.Time,
) (data []byte, stamp uint32, err error) {
	if action == actionCompleted {
		top.text("description")
		top.percent("audit_score")
	} else {
		top.text("error_message")
	}
	var c completion
	if top.value("upload_id") == nil {
		c.insert(top.Find("action").To, `,"upload_id":`, uploadID, "")
	}
	return c.complete(top, now)
}

// completion collects the members that a message lacks.
type completion struct {
	edits [4]edit
	n     int
}

// edit replaces the bytes between two positions.
type edit struct {
	from, to int
	// before, id as a JSON string unless it is empty, and after are the new bytes.
	before, id, after string
	// inserted is the length of the text at the end of before that stands for a missing timestamp.
	inserted int
}

func (c *completion) insert(at int, before, id, after string) {
	c.edits[c.n] = edit{at, at, before, id, after, 0}
	c.n++
}

// complete returns a copy of the object with the collected members, and with its timestamp in UTC. stamp is the index
// of the timestamp if the object had none, else 0.
func (c *completion) complete(o *object, now time.Time) (data []byte, stamp uint32, err error) {
	end := len(o.data) - 1
	time := edit{from: end, to: end}
	if text := o.timestamp(now); text != "" {
		time.before = text
		if m := o.Find("timestamp"); m != nil {
			time.from, time.to = m.From, m.To
		} else {
			time.before, time.inserted = `,"timestamp":`+text, len(text)
		}
	}
	if o.err != nil {
		return nil, 0, o.err
	}
	c.edits[c.n] = time
	c.n++
	edits := c.edits[:c.n]
	slices.SortStableFunc(edits, func(a, b edit) int { return a.from - b.from })
	size := len(o.data)
	for _, e := range edits {
		size += len(e.before) + len(e.id) + len(`""`) + len(e.after)
	}
	b, from := make([]byte, 0, size), 0
	for _, e := range edits {
		b = append(append(b, o.data[from:e.from]...), e.before...)
		if e.inserted > 0 {
			stamp = uint32(len(b) - e.inserted) //nolint:gosec // a message is shorter
		}
		if e.id != "" {
			b = appendString(b, e.id)
		}
		b, from = append(b, e.after...), e.to
	}
	return append(b, o.data[from:]...), stamp, nil
}

package manager

import (
	"encoding/json"
	"fmt"
)

// NewEvent returns a message of an application's own action and of ClassEvent. v is marshalled by encoding/json and
// must become an object, or null; its members stand beside "action". The value is marshalled once and not parsed again.
//
// The error is that of json.Marshal, or an *InvalidError: for an action of the protocol, and for members named action,
// offset or skipped. The class applies on the node that publishes; with a Broker, other nodes classify a message by
// Options.Classes.
func NewEvent(action string, v any) (Encoded, error) { return newOwn(action, ClassEvent, "", v) }

// NewState is like NewEvent for ClassState. key has at most 255 bytes: a newer state replaces a queued one of the
// same action, upload and key.
func NewState(action, key string, v any) (Encoded, error) { return newOwn(action, ClassState, key, v) }

// NewTerminal is like NewEvent for ClassTerminal.
func NewTerminal(action string, v any) (Encoded, error) { return newOwn(action, ClassTerminal, "", v) }

func newOwn(action string, class Class, key string, v any) (Encoded, error) {
	switch {
	case action == "":
		return Encoded{}, &InvalidError{"action", "must not be empty"}
	case known(action) || reserved(action):
		return Encoded{}, &InvalidError{"action", fmt.Sprintf("is %q, which the protocol defines", action)}
	case len(key) > maxKey:
		return Encoded{}, &InvalidError{"key", fmt.Sprintf("has %d bytes, at most %d are allowed", len(key), maxKey)}
	}
	members, err := json.Marshal(v)
	if err != nil {
		return Encoded{}, err
	}
	if isNull(members) {
		members = []byte("{}")
	}
	if members[0] != '{' {
		return Encoded{}, &InvalidError{"", fmt.Sprintf("must become a JSON object, but %T does not", v)}
	}
	top, payload := object{}, object{path: "payload."}
	top.scan(members, true)
	for _, name := range []string{"action", "offset", "skipped"} {
		if top.value(name) != nil {
			top.refuse(name, "is a field of the protocol; the value must not have it")
		}
	}
	if nested := top.value("payload"); len(nested) > 0 && nested[0] == '{' {
		payload.scan(nested, false)
	}
	e := Encoded{class: class, action: action}
	if class == ClassState {
		e.stateKey = stateKey(action, []byte(key))
	}
	if id, ok := payload.string("upload_id"); ok {
		e.names = string(id)
	}
	if id := top.id("upload_id", ""); id != "" {
		e.uploadID, e.names = id, id
	}
	if top.err != nil {
		return Encoded{}, top.err
	}
	e.payload = make([]byte, 0, len(`{"action":"",`)+len(action)+len(members))
	e.payload = appendString(append(e.payload, `{"action":`...), action)
	if top.count > 0 {
		e.payload = append(e.payload, ',')
	}
	e.payload = append(e.payload, members[1:]...)
	return e, nil
}

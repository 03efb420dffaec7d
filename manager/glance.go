package manager

import (
	"bytes"
	"fmt"

	"github.com/shoal-go/shoal/internal/frame"
)

// glance validates a message that arrived through the broker, from another node or from a publisher outside this
// module. It extracts only the fields that delivery requires, because it runs for every message on every node; the
// publisher is responsible for the rest. uploadID is the upload that the message was sent to, or "" if it was sent to a
// user; most bounds the message's bytes.
//
// The error is an *InvalidError that names the field.
func glance(uploadID string, data []byte, most int) (Encoded, error) {
	if len(data) > most {
		return Encoded{}, tooLarge(len(data), most)
	}
	data = bytes.Trim(data, " \t\r\n")
	if err := checkJSON(data); err != nil {
		return Encoded{}, err
	}
	if data[0] != '{' {
		return Encoded{}, &InvalidError{"", "must be a JSON object"}
	}
	g := glimpse{uploadID: uploadID}
	eachField(data, g.look)
	switch {
	case g.err != nil:
	case g.action == "":
		g.refuse("action", "is missing")
	case g.action == actionProgress:
		g.lookInto(g.payload)
	}
	if g.err != nil {
		return Encoded{}, g.err
	}
	return Encoded{data, classOf(g.action), g.action, g.uploadID}, nil
}

// glimpse is the result of parsing a message partially.
type glimpse struct {
	uploadID string // upload id of the channel, or else of the message
	action   string
	payload  []byte
	err      error
}

// look reads one field and reports whether to continue.
func (g *glimpse) look(key, value []byte) bool {
	switch string(key) {
	case "action":
		g.lookAtAction(value)
	case "upload_id":
		g.lookAtID("upload_id", value)
	case "payload":
		if g.payload != nil {
			g.refuse("payload", "stands there twice")
		}
		g.payload = value
	case "offset", "skipped":
		g.refuse(string(key), "is a field that the server adds; a published message must not have it")
	}
	return g.err == nil
}

func (g *glimpse) lookAtAction(value []byte) {
	if g.action != "" {
		g.refuse("action", "stands there twice")
		return
	}
	action, _ := textOf(value)
	g.action = actionOf(action)
	switch {
	case g.action == "":
		g.refuse("action", "must be a string that is not empty")
	case reserved(g.action):
		g.refuse("action", fmt.Sprintf("is %q, which is reserved for the protocol", g.action))
	}
}

// actionOf returns an action as a string. Frequent actions need no copy.
func actionOf(text []byte) string {
	switch string(text) {
	case actionProgress:
		return actionProgress
	case actionCompleted:
		return actionCompleted
	case actionFailed:
		return actionFailed
	}
	return string(text)
}

// lookInto parses the payload of an upload_progress. Payloads of application-defined messages are not checked.
func (g *glimpse) lookInto(payload []byte) {
	if len(payload) == 0 || payload[0] != '{' {
		return
	}
	eachField(payload, func(name, value []byte) bool {
		if string(name) == "upload_id" {
			g.lookAtID("payload.upload_id", value)
		}
		return g.err == nil
	})
}

// lookAtID refuses an invalid id, or the id of another upload.
func (g *glimpse) lookAtID(field string, value []byte) {
	text, ok := textOf(value)
	if !ok {
		g.refuse(field, "must be a string")
		return
	}
	if g.uploadID != "" && string(text) == g.uploadID { // which has been checked, and needs no copy
		return
	}
	id := string(text)
	if g.err = CheckID(field, id); g.err == nil {
		g.uploadID, g.err = sameUpload(field, id, g.uploadID)
	}
}

func (g *glimpse) refuse(field, problem string) { g.err = &InvalidError{field, problem} }

// classOf returns the class of an action, which determines the handling of its messages for slow clients.
func classOf(action string) frame.Class {
	switch action {
	case actionProgress:
		return frame.State
	case actionCompleted, actionFailed:
		return frame.Terminal
	}
	return frame.Event
}

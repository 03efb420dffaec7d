package client

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// fields are the members of a JSON object by their exact names. encoding/json ignores the case of names when it decodes
// into a struct, so a member of the application named "Offset" would be taken for the server's.
type fields map[string]json.RawMessage

// incoming is a message of the server.
type incoming struct {
	fields
	action string
	data   []byte
}

func decode(data []byte) (incoming, error) {
	in := incoming{data: data}
	if !utf8.Valid(data) || json.Unmarshal(data, &in.fields) != nil || in.fields == nil {
		return in, violation("a message of %d bytes is not a JSON object", len(data))
	}
	if err := in.read("action", &in.action); err != nil {
		return in, err
	}
	if in.action == "" {
		return in, violation("a message has no action")
	}
	return in, nil
}

// read decodes a member into v, which keeps its value if the member is missing.
func (f fields) read(name string, v any) error {
	raw, ok := f[name]
	if !ok {
		return nil
	}
	if json.Unmarshal(raw, v) != nil {
		return violation("the field %q of a message has the wrong type or range", name)
	}
	return nil
}

// text returns a member that is a string, printable and short, or "" if it is missing.
func (f fields) text(name string) string {
	var text string
	if json.Unmarshal(f[name], &text) != nil {
		return ""
	}
	return quoted(text)
}

// uploadID returns the upload that a message names at its top, or in its payload, or "".
func (in incoming) uploadID() string {
	raw, ok := in.fields["upload_id"]
	if !ok {
		var payload fields
		if json.Unmarshal(in.fields["payload"], &payload) != nil {
			return ""
		}
		raw = payload["upload_id"]
	}
	var id string
	if json.Unmarshal(raw, &id) != nil {
		return ""
	}
	return id
}

// message returns the message of an upload, or of the user.
func (in incoming) message() (m Message, err error) {
	m = Message{UploadID: in.uploadID(), Action: in.action, Data: in.data}
	if err := in.read("offset", &m.Offset); err != nil {
		return m, err
	}
	if err := in.read("skipped", &m.Skipped); err != nil {
		return m, err
	}
	if m.Offset > 0 && m.UploadID == "" {
		return m, violation("a message with an offset names no upload")
	}
	return m, nil
}

// answer is the server's answer to a subscription, or its notice that an upload's position has changed.
type answer struct {
	Position
	recovered bool
	// expired: the newest message is no longer held, so that none follows an answer without recovery. Older servers do not
	// tell it.
	expired bool
}

func (f fields) answer() (a answer, err error) {
	if f["epoch"] == nil || f["offset"] == nil || f["recovered"] == nil {
		return a, violation("the answer to a subscription lacks epoch, offset or recovered")
	}
	for name, v := range map[string]any{
		"epoch": &a.Epoch, "offset": &a.Offset, "recovered": &a.recovered, "expired": &a.expired,
	} {
		if err := f.read(name, v); err != nil {
			return a, err
		}
	}
	if len(a.Epoch) > maxEpoch {
		return a, violation("an epoch has %d bytes, want at most %d", len(a.Epoch), maxEpoch)
	}
	return a, nil
}

const (
	// maxEpoch bounds an epoch, which is sent back to the server.
	maxEpoch = 255
	// maxID bounds the id of an upload in bytes.
	maxID = 255
)

// checkID returns an error unless the server accepts the id of an upload.
func checkID(id string) error {
	if id != "" && len(id) <= maxID && utf8.ValidString(id) &&
		!strings.ContainsFunc(id, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }) {
		return nil
	}
	return fmt.Errorf("client: the upload id %.40q is not valid, want 1 to %d bytes of UTF-8 without control characters",
		id, maxID)
}

package server

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/shoal-go/shoal/manager"
)

// uploadPosition is the beginning of an answer about an upload.
type uploadPosition struct {
	UploadID string `json:"upload_id"`
	manager.Position
}

// newest answers with the newest message of an upload, null if the history no longer has it.
func (a *api) newest(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	id := r.PathValue("upload_id") // the manager validates it
	message, position, err := a.manager.Newest(r.Context(), id)
	if err != nil {
		return err
	}
	b := openObject(uploadPosition{id, position})
	b = append(b, `,"message":`...)
	b = appendMessage(b, message)
	writeBody(w, http.StatusOK, "application/json", append(b, "}\n"...))
	return nil
}

// history answers with the stored messages after a position.
func (a *api) history(w http.ResponseWriter, r *http.Request, query url.Values) error {
	id := r.PathValue("upload_id") // the manager validates it
	since, err := sincePosition(query)
	if err != nil {
		return err
	}
	h, err := a.manager.History(r.Context(), id, since)
	if err != nil {
		return err
	}
	b := openObject(struct {
		uploadPosition
		Recovered bool `json:"recovered"`
	}{uploadPosition{id, h.Position}, h.Complete})
	b = append(b, `,"messages":[`...)
	for i, m := range h.Messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"offset":`...)
		b = strconv.AppendUint(b, m.Offset, 10)
		b = append(b, `,"message":`...)
		b = appendMessage(b, m)
		b = append(b, '}')
	}
	writeBody(w, http.StatusOK, "application/json", append(b, "]}\n"...))
	return nil
}

// sincePosition returns the position in a query, by default the beginning of the history.
func sincePosition(query url.Values) (since manager.Position, err error) {
	switch {
	case query.Has("since"):
		if since.Offset, err = strconv.ParseUint(query.Get("since"), 10, 64); err != nil {
			return since, invalidField("since", "must be an offset, a whole number from 0 on")
		}
	case query.Has("epoch"):
		return since, invalidField("since", "is missing beside epoch")
	}
	since.Epoch = query.Get("epoch")
	return since, nil
}

// openObject returns v, a struct with a field, as JSON without the closing brace. The messages are appended to it
// because encoding/json would not keep them byte for byte.
func openObject(v any) []byte {
	b := encodeJSON(v)
	return b[:len(b)-len("}\n")]
}

func appendMessage(b []byte, m manager.Stored) []byte {
	if m.Payload == nil {
		return append(b, "null"...)
	}
	return append(b, m.Payload...)
}

// subscribers answers with the users that follow an upload on the nodes that have answered in time.
func (a *api) subscribers(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	id := r.PathValue("upload_id") // the manager validates it
	s, err := a.manager.Subscribers(r.Context(), id)
	if err != nil {
		return err
	}
	if s.Users == nil {
		s.Users = []string{} // null in JSON otherwise
	}
	writeJSON(w, http.StatusOK, struct {
		UploadID     string   `json:"upload_id"`
		Users        []string `json:"users"`
		Count        int      `json:"count"`
		MissingNodes []string `json:"missing_nodes,omitempty"`
	}{id, s.Users, len(s.Users), s.Missing})
	return nil
}

// forget drops the history of an upload.
func (a *api) forget(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	id := r.PathValue("upload_id") // the manager validates it
	if err := a.manager.Forget(r.Context(), id); err != nil {
		return err
	}
	writeNoContent(w)
	return nil
}

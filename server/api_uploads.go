package server

import (
	"net/http"
	"net/url"
	"runtime"
	"strconv"

	"github.com/shoal-go/shoal/manager"
)

// batchTurn is how many messages of a batch are published before the writers get a turn, so that on a busy
// machine a batch does not fill the queue of a client that is not slow at all.
const batchTurn = 64

// publish publishes the body's messages in order, none of them unless all are valid.
func (a *api) publish(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "upload_id")
	if err != nil {
		return err
	}
	messages, err := a.messages(w, r, id)
	if err != nil {
		return err
	}
	var last manager.Position
	for i, m := range messages {
		if last, err = a.manager.Publish(r.Context(), id, m.Encoded); err != nil {
			return m.refused(err, i > 0)
		}
		if i%batchTurn == batchTurn-1 {
			runtime.Gosched()
		}
	}
	if last.Epoch == "" { // the broker has not told it with the offset
		if _, at, err := a.manager.Newest(r.Context(), id); err == nil {
			last.Epoch = at.Epoch
		}
	}
	writeJSON(w, http.StatusAccepted, struct {
		Accepted int `json:"accepted"`
		manager.Position
	}{len(messages), last})
	return nil
}

// uploadPosition begins an answer about an upload.
type uploadPosition struct {
	UploadID string `json:"upload_id"`
	manager.Position
}

// newest answers with an upload's newest message, null if it is no longer held.
func (a *api) newest(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "upload_id")
	if err != nil {
		return err
	}
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

// history answers with the messages held after a position.
func (a *api) history(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "upload_id")
	if err != nil {
		return err
	}
	since, err := sincePosition(r)
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

// sincePosition returns the position that a request's query names, the beginning if it names none.
func sincePosition(r *http.Request) (manager.Position, error) {
	q, err := query(r)
	if err != nil {
		return manager.Position{}, err
	}
	since := manager.Position{Epoch: q.Get("epoch")}
	if q.Has("since") {
		since.Offset, err = strconv.ParseUint(q.Get("since"), 10, 64)
		if err != nil {
			return manager.Position{}, invalidField("since", "must be an offset, a whole number from 0 on")
		}
	}
	return since, nil
}

// query returns a request's query. Unlike URL.Query it refuses one that is malformed.
func query(r *http.Request) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalidField("query", "is malformed; what is special in it must be percent-encoded")
	}
	return q, nil
}

// openObject returns v, a struct with a field, as JSON without the closing brace: encoding/json would not leave
// the messages that follow as they were published.
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

// subscribers answers with the users that follow an upload, on all nodes that have answered in time.
func (a *api) subscribers(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "upload_id")
	if err != nil {
		return err
	}
	s, err := a.manager.Subscribers(r.Context(), id)
	if err != nil {
		return err
	}
	if s.Users == nil {
		s.Users = []string{} // which JSON does not write as null
	}
	writeJSON(w, http.StatusOK, struct {
		UploadID     string   `json:"upload_id"`
		Users        []string `json:"users"`
		Count        int      `json:"count"`
		MissingNodes []string `json:"missing_nodes,omitempty"`
	}{id, s.Users, len(s.Users), s.Missing})
	return nil
}

// forget drops an upload's history.
func (a *api) forget(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "upload_id")
	if err != nil {
		return err
	}
	if err := a.manager.Forget(r.Context(), id); err != nil {
		return err
	}
	writeNothing(w)
	return nil
}

package server

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// uploadPosition is the beginning of an answer about an upload.
type uploadPosition struct {
	UploadID string `json:"upload_id"`
	manager.Position
}

// newest answers with the newest message of an upload, null if the history no longer has it.
func (a *api) newest(w http.ResponseWriter, r *http.Request, id string, _ url.Values) error {
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
func (a *api) history(w http.ResponseWriter, r *http.Request, id string, query url.Values) error {
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
func (a *api) subscribers(w http.ResponseWriter, r *http.Request, id string, _ url.Values) error {
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
func (a *api) forget(w http.ResponseWriter, r *http.Request, id string, _ url.Values) error {
	if err := a.manager.Forget(r.Context(), id); err != nil {
		return err
	}
	writeNoContent(w)
	return nil
}

// sendToUser sends the messages of the body in order to all connections of a user, and none of them unless all are
// valid. It answers with the outcomes, and stops if the caller leaves.
func (a *api) sendToUser(w http.ResponseWriter, r *http.Request, userID string, _ url.Values) error {
	if r.Header.Values(keyHeader) != nil {
		return invalidField(keyHeader, "is not supported for messages to users, which are not stored")
	}
	share := a.bodies.share()
	defer share.release()
	messages, _, err := a.messages(w, r, "", share)
	if err != nil {
		return err
	}
	var sum struct {
		Queued    int `json:"queued"`
		Conflated int `json:"conflated"`
		Dropped   int `json:"dropped"`
	}
	came := time.Now()
	for i, m := range messages {
		if err := cmp.Or(r.Context().Err(), checkTime(came)); err != nil {
			return m.refused(err, &published{Accepted: i})
		}
		d, err := a.manager.SendToUser(r.Context(), userID, m.Encoded)
		if err != nil {
			return m.refused(err, &published{Accepted: i})
		}
		sum.Queued += d.Queued
		sum.Conflated += d.Conflated
		sum.Dropped += d.Dropped
	}
	writeJSON(w, http.StatusAccepted, sum)
	return nil
}

// disconnectUser closes all connections of a user.
func (a *api) disconnectUser(w http.ResponseWriter, r *http.Request, id string, query url.Values) error {
	return disconnect(w, r, id, query, a.manager.DisconnectUser)
}

// disconnectToken closes all connections that have shown a token.
func (a *api) disconnectToken(w http.ResponseWriter, r *http.Request, id string, query url.Values) error {
	return disconnect(w, r, id, query, a.manager.DisconnectToken)
}

// disconnect closes the connections of the id in the path on all nodes, and answers with their number on this one.
func disconnect(w http.ResponseWriter, r *http.Request, id string, query url.Values,
	closeAll func(ctx context.Context, id string, reason manager.CloseReason) (int, error),
) error {
	reason, err := closeReason(query)
	if err != nil {
		return err
	}
	closed, err := closeAll(r.Context(), id, reason)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusAccepted, struct {
		Closed int `json:"closed"`
	}{closed})
	return nil
}

// closeReason returns the close code and the reason in a query.
func closeReason(q url.Values) (manager.CloseReason, error) {
	reason := manager.CloseReason{Code: manager.NormalClosure.Code, Text: q.Get("reason")}
	if q.Has("code") {
		code, err := strconv.ParseUint(q.Get("code"), 10, 16)
		if err != nil || !mayCloseWith(uint16(code)) {
			return manager.CloseReason{}, invalidField("code", "must be 1000, 1008, 1012, 1013 or from 3000 to 4999")
		}
		reason.Code = uint16(code)
	}
	if len(reason.Text) > frame.MaxReasonBytes || !utf8.ValidString(reason.Text) {
		return manager.CloseReason{}, invalidField("reason",
			fmt.Sprintf("must be valid UTF-8 of at most %d bytes", frame.MaxReasonBytes))
	}
	return reason, nil
}

// mayCloseWith reports whether an application may close with a code: one that tells a client of the protocol how to go
// on, or one that RFC 6455 leaves to applications.
func mayCloseWith(code uint16) bool {
	switch code {
	case 1000, 1008, 1012, 1013:
		return true
	}
	return code >= 3000 && code <= 4999
}

// description is the OpenAPI description of the API at the root of a server.
//
//go:embed openapi.json
var description string

// descriptionPath is the path of the description. It needs no API key: it is the same on every server.
const descriptionPath = "/v1/openapi.json"

// describe answers with the description of the API at its path.
func (a *api) describe(w http.ResponseWriter, _ *http.Request, _ string, _ url.Values) error {
	text := description
	if a.opt.PathPrefix != "" {
		text = strings.Replace(text, `{"url": "/"}`, `{"url": "`+a.opt.PathPrefix+`"}`, 1)
	}
	writeBody(w, http.StatusOK, "application/json", []byte(text))
	return nil
}

// isPublic reports whether a request needs no API key.
func isPublic(r *http.Request) bool {
	return r.URL.Path == descriptionPath && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

func (a *api) stats(w http.ResponseWriter, _ *http.Request, _ string, _ url.Values) error {
	writeJSON(w, http.StatusOK, a.opt.Stats())
	return nil
}

// nodes answers with the counts of the nodes that have answered in time.
func (a *api) nodes(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	stats, missing, err := a.manager.NodeStats(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Nodes        map[string]manager.Stats `json:"nodes"`
		MissingNodes []string                 `json:"missing_nodes,omitempty"`
	}{stats, missing})
	return nil
}

package server

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/shoal-go/shoal/manager"
)

// sendToUser sends the messages of the body in order to all connections of a user, and none of them unless all are
// valid. It answers with the outcomes, and stops if the caller leaves.
func (a *api) sendToUser(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	id, err := pathID(r, "user_id")
	if err != nil {
		return err
	}
	if r.Header.Values(keyHeader) != nil {
		return invalidField(keyHeader, "is not supported for messages to users, which are not stored")
	}
	messages, _, err := a.messages(w, r, "")
	if err != nil {
		return err
	}
	var sum struct {
		Queued    int `json:"queued"`
		Conflated int `json:"conflated"`
		Dropped   int `json:"dropped"`
	}
	for i, m := range messages {
		if err := r.Context().Err(); err != nil {
			return m.refused(err, &published{Accepted: i})
		}
		d, err := a.manager.SendToUser(r.Context(), id, m.Encoded)
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
func (a *api) disconnectUser(w http.ResponseWriter, r *http.Request, query url.Values) error {
	return disconnect(w, r, query, "user_id", a.manager.DisconnectUser)
}

// disconnectToken closes all connections that have shown a token.
func (a *api) disconnectToken(w http.ResponseWriter, r *http.Request, query url.Values) error {
	return disconnect(w, r, query, "token_id", a.manager.DisconnectToken)
}

// disconnect closes the connections of the id in the path on all nodes, and answers with their number on this one.
func disconnect(w http.ResponseWriter, r *http.Request, query url.Values, name string,
	closeAll func(ctx context.Context, id string, reason manager.CloseReason) (int, error),
) error {
	id, err := pathID(r, name)
	if err != nil {
		return err
	}
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

// maxReasonBytes is the room in a close frame beside the code.
const maxReasonBytes = 123

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
	if len(reason.Text) > maxReasonBytes || !utf8.ValidString(reason.Text) {
		return manager.CloseReason{}, invalidField("reason",
			fmt.Sprintf("must be valid UTF-8 of at most %d bytes", maxReasonBytes))
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

package server

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// eventsRequest is a request for an event stream.
type eventsRequest struct {
	uploads []string
	// since are the positions of uploads from which the client continues.
	since    map[string]frame.Start
	token    string
	peer     netip.Addr
	identity Identity
	// forbidden are uploads that the user may not follow.
	forbidden []string
}

// The parameters of an event stream.
const (
	paramToken  = "access_token"
	paramLastID = "last_event_id"
	paramUpload = "id"
	headerLast  = "Last-Event-Id" // in the canonical form of net/http
)

// parseEventsRequest decodes a request for a stream. The problem repeats neither a token nor an id.
func parseEventsRequest(r *http.Request) (*eventsRequest, *apiProblem) {
	switch {
	case r.Method != http.MethodGet:
		problem := newProblem(http.StatusMethodNotAllowed, "an event stream is opened with GET")
		problem.header.Set("Allow", http.MethodGet)
		return nil, problem
	case hasBody(r):
		return nil, newProblem(http.StatusBadRequest, "a request for an event stream has no body")
	}
	query, problem := eventsQuery(r)
	if problem != nil {
		return nil, problem
	}
	request := &eventsRequest{uploads: query[paramUpload], token: bearer(r)}
	if request.uploads, problem = eventsUploads(r, query); problem != nil {
		return nil, problem
	}
	if token := query.Get(paramToken); token != "" {
		if len(r.Header.Values("Authorization")) > 0 {
			return nil, invalidField(paramToken, "must not be given beside the header Authorization")
		}
		request.token = token
	}
	field, last := "Last-Event-ID", r.Header.Get(headerLast)
	if len(r.Header.Values(headerLast)) > 1 {
		return nil, invalidField(field, "must not be given twice")
	}
	// EventSource repeats the address of the first request, so the header is newer.
	if last == "" {
		field, last = paramLastID, query.Get(paramLastID)
	}
	if last != "" {
		var err error
		if request.since, err = frame.ParseEventID(last, request.uploads); err != nil {
			return nil, invalidField(field, err.Error())
		}
	}
	return request, nil
}

// eventsQuery returns the parameters of a request. Like the API it refuses parameters that are unknown.
func eventsQuery(r *http.Request) (url.Values, *apiProblem) {
	known := []string{paramToken, paramLastID}
	if r.URL.EscapedPath() == eventsPath {
		known = append(known, paramUpload)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalidField("query", "is malformed; special characters in it must be percent-encoded")
	}
	for name, values := range query {
		switch {
		case !slices.Contains(known, name):
			return nil, invalidField("query", "has an unknown parameter; known are "+strings.Join(known, ", "))
		case name != paramUpload && len(values) > 1:
			return nil, invalidField(name, "must not be given twice")
		}
	}
	return query, nil
}

// eventsUploads returns the uploads of a request.
func eventsUploads(r *http.Request, query url.Values) ([]string, *apiProblem) {
	ids, name := query[paramUpload], paramUpload
	if segment, found := strings.CutPrefix(r.URL.EscapedPath(), eventsPath+"/"); found {
		id, err := url.PathUnescape(segment)
		if err != nil {
			return nil, invalidField("upload_id", "is malformed; special characters in it must be percent-encoded")
		}
		ids, name = []string{id}, "upload_id"
	}
	switch n := len(ids); {
	case n == 0:
		return nil, invalidField(paramUpload, "is missing; give it once for each upload")
	case n > frame.MaxEventUploads:
		return nil, invalidField(paramUpload, fmt.Sprintf(
			"is given %d times, at most %d uploads fit in one stream; a WebSocket can follow more", n, frame.MaxEventUploads))
	}
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if err := manager.CheckID(name, id); err != nil {
			return nil, problemOf(err)
		}
		if seen[id] {
			return nil, invalidField(name, "names an upload twice")
		}
		seen[id] = true
	}
	return ids, nil
}

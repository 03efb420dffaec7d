package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/shoal-go/shoal/manager"
)

// apiProblem is an error as the HTTP API answers it (RFC 9457). All of it is meant for the caller, so it holds
// no secret, no payload and nothing of what went wrong inside.
type apiProblem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Field is the part of the request that is wrong, as it stands there.
	Field string `json:"field,omitempty"`
	// Line is the line of the body that it stands on, from 1, where the body has one message a line.
	Line int `json:"line,omitempty"`

	// header holds what else the answer's header says.
	header http.Header
}

func (p *apiProblem) Error() string { return "server: " + p.Detail }

func newProblem(status int, detail string) *apiProblem {
	return &apiProblem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, header: http.Header{},
	}
}

// invalidField is the problem of a request of which one named part is wrong.
func invalidField(field, detail string) *apiProblem {
	p := newProblem(http.StatusBadRequest, field+" "+detail)
	p.Field = field
	return p
}

// lineError is an error with the line of the body that it is about.
type lineError struct {
	line int
	err  error
	// halfway: the messages on the lines before are out.
	halfway bool
}

func (e *lineError) Error() string { return "line " + strconv.Itoa(e.line) + ": " + e.err.Error() }
func (e *lineError) Unwrap() error { return e.err }

// problemOf says what a caller is told of an error. It returns nil for one that is not the caller's affair.
func problemOf(err error) *apiProblem {
	var (
		own     *apiProblem
		invalid *manager.InvalidError
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &invalid) && invalid.Field == "":
		return newProblem(http.StatusBadRequest, "the message "+invalid.Problem)
	case errors.As(err, &invalid):
		return invalidField(invalid.Field, invalid.Problem)
	case errors.Is(err, manager.ErrClosed):
		return unavailable("the server is shutting down")
	case errors.Is(err, manager.ErrUnknownUpload):
		return newProblem(http.StatusNotFound, "nothing is known of this upload")
	case errors.Is(err, manager.ErrUnavailable):
		return unavailable("the broker that joins the nodes is out of reach, so it may not have been done; try again")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return unavailable("the request ended before the message was published")
	}
	return nil
}

// unavailable is the problem of a request that is right, and may be sent again.
func unavailable(detail string) *apiProblem {
	p := newProblem(http.StatusServiceUnavailable, detail)
	p.header.Set("Retry-After", "1")
	return p
}

// writeProblem answers a request with an error, and logs one that the caller is not told.
func writeProblem(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	p := problemOf(err)
	if p == nil {
		log.ErrorContext(r.Context(), "an API request failed", "method", r.Method, "route", r.Pattern, "error", err)
		p = newProblem(http.StatusInternalServerError, "the server could not do it; its log says why")
	}
	if at := new(lineError); errors.As(err, &at) {
		p.Line = at.line
		p.Detail = "line " + strconv.Itoa(at.line) + ": " + p.Detail
		if at.halfway {
			p.Detail += "; the messages on the lines before are out"
		}
	}
	for name, values := range p.header {
		w.Header()[name] = values
	}
	writeBody(w, p.Status, "application/problem+json", encodeJSON(p))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	writeBody(w, status, "application/json", encodeJSON(v))
}

// writeNothing answers that all is well, and no more.
func writeNothing(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a caller that left has no use for it
}

// encodeJSON returns v, which must be of a type that has a JSON form, as one line.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("server: " + err.Error()) // net/http answers nothing then, and logs it
	}
	return b.Bytes()
}

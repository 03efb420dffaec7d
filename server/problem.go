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

// apiProblem is an error of the HTTP API (RFC 9457). The caller gets all of it, so it contains no secret, no payload
// and no cause within the server.
type apiProblem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Code is the code of an auth_error on shoal.v1, for a token that is refused.
	Code string `json:"code,omitempty"`
	// Field is the name of the wrong part of the request.
	Field string `json:"field,omitempty"`
	// MissingNodes are the nodes that did not confirm a command.
	MissingNodes []string `json:"missing_nodes,omitempty"`
	// Line is the line of the body with the error, from 1, if the body has one message per line.
	Line int `json:"line,omitempty"`
	// Accepted is the number of lines that were published completely before an error interrupted the publication, and
	// Positions are those of the published messages, where the body names uploads.
	Accepted  *int             `json:"accepted,omitempty"`
	Positions []uploadPosition `json:"positions,omitempty"`

	// header has further header fields of the answer.
	header http.Header
}

func (p *apiProblem) Error() string { return "server: " + p.Detail }

func newProblem(status int, detail string) *apiProblem {
	return &apiProblem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, header: http.Header{},
	}
}

// invalidField is the problem of a request with one wrong part.
func invalidField(field, detail string) *apiProblem {
	p := newProblem(http.StatusBadRequest, field+" "+detail)
	p.Field = field
	return p
}

// lineError is an error with its line in the body.
type lineError struct {
	line int
	err  error
	// published are the earlier lines; nil if the error was found before anything was published.
	published *published
}

// published are the lines of a body that were published completely, and the positions of their messages where the body
// names uploads.
type published struct {
	Accepted  int              `json:"accepted"`
	Positions []uploadPosition `json:"positions,omitempty"`
}

func (e *lineError) Error() string { return "line " + strconv.Itoa(e.line) + ": " + e.err.Error() }
func (e *lineError) Unwrap() error { return e.err }

// problemOf returns the problem that a caller gets for an error, or nil for an error whose cause the caller must not
// see.
func problemOf(err error) *apiProblem {
	var (
		own     *apiProblem
		invalid *manager.InvalidError
		missing *manager.MissingNodesError
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &invalid) && invalid.Field == "":
		return newProblem(http.StatusBadRequest, "the message "+invalid.Problem)
	case errors.As(err, &invalid):
		return invalidField(invalid.Field, invalid.Problem)
	case errors.Is(err, manager.ErrKeyReused):
		p := newProblem(http.StatusUnprocessableEntity, keyHeader+" was used with another body for this upload; a new "+
			"request needs a new key")
		p.Field = keyHeader
		return p
	case errors.Is(err, manager.ErrKeysUnsupported):
		p := newProblem(http.StatusNotImplemented, keyHeader+" is not supported by the broker of this server")
		p.Field = keyHeader
		return p
	case errors.Is(err, manager.ErrClosed):
		return shuttingDown()
	case errors.Is(err, manager.ErrUnknownUpload):
		return newProblem(http.StatusNotFound, "unknown upload")
	case errors.As(err, &missing):
		p := unavailable("nodes did not confirm the command, so it may not have taken effect there; try again")
		p.MissingNodes = missing.Nodes
		return p
	case errors.Is(err, manager.ErrUnavailable):
		return unavailable("the broker is out of reach or refuses to store messages, so the request may not have " +
			"taken effect; try again. /readyz and the log have the reason")
	case errors.Is(err, manager.ErrRefused):
		return newProblem(http.StatusInternalServerError, "the broker refuses this to the server, and nothing was "+
			"changed; an operator finds the reason in the log and in /readyz")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return unavailable("the request ended before the message was published")
	}
	return nil
}

// unavailable is the problem of a valid request that may succeed later.
func unavailable(detail string) *apiProblem {
	p := newProblem(http.StatusServiceUnavailable, detail)
	p.header.Set("Retry-After", "1")
	return p
}

// shuttingDown is the problem of a request that comes too late for this server.
func shuttingDown() *apiProblem { return unavailable("the server is shutting down") }

// writeProblem answers a request with an error, and logs an error whose cause the caller does not get.
func writeProblem(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	p := problemOf(err)
	if p == nil || errors.Is(err, manager.ErrRefused) {
		log.ErrorContext(r.Context(), "API request failed", "method", r.Method, "route", r.Pattern, "error", err)
	}
	if p == nil {
		p = newProblem(http.StatusInternalServerError, "internal error; see the log of the server")
	}
	if at := new(lineError); errors.As(err, &at) {
		p.Line = at.line
		p.Detail = "line " + strconv.Itoa(at.line) + ": " + p.Detail
		if before := at.published; before != nil {
			p.Accepted, p.Positions = &before.Accepted, before.Positions
			if before.Accepted > 0 || len(before.Positions) > 0 {
				p.Detail += "; the messages of the earlier lines are published"
			}
			if p.Status == http.StatusServiceUnavailable && r.Header.Get(keyHeader) != "" {
				p.Detail += "; repeat the whole request with the same " + keyHeader + " to publish only the others"
			}
		}
	}
	p.ServeHTTP(w, r)
}

// ServeHTTP answers a request with the problem. It blocks while the client takes no bytes.
func (p *apiProblem) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	body := encodeJSON(p)
	for name, values := range p.headerOf(body) {
		w.Header()[name] = values
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // JSON with its content type; the caller may have left
}

// headerOf returns the header of the answer with the problem's body.
func (p *apiProblem) headerOf(body []byte) http.Header {
	h := p.header.Clone()
	setBodyHeader(h, "application/problem+json", body)
	return h
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	writeBody(w, status, "application/json", encodeJSON(v))
}

// writeNoContent answers with 204.
func writeNoContent(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	setBodyHeader(w.Header(), contentType, body)
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // JSON with its content type; the caller may have left
}

// setBodyHeader sets the header fields of a body. Their values share one allocation.
func setBodyHeader(h http.Header, contentType string, body []byte) {
	values := [...]string{contentType, "no-store", strconv.Itoa(len(body))}
	h["Content-Type"], h["Cache-Control"], h["Content-Length"] = values[0:1:1], values[1:2:2], values[2:3:3]
}

// encodeJSON returns v, which must have a JSON form, as one line.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("server: " + err.Error()) // net/http logs it and closes the connection
	}
	return b.Bytes()
}

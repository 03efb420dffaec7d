package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// bodyMessage is a validated message of a request's body.
type bodyMessage struct {
	manager.Encoded
	// line is where it stands, from 1; 0 in a body that is one message.
	line int
}

// refused returns the error of a message with its line, where it has one. halfway says whether messages on
// lines before it are out.
func (m bodyMessage) refused(err error, halfway bool) error {
	if m.line == 0 {
		return err
	}
	return &lineError{m.line, err, halfway}
}

// jsonSpace is what JSON allows around a value.
const jsonSpace = " \t\r\n"

// messages reads and validates a request's whole body: one message, or one a line. There is at least one in
// what it returns without an error. uploadID is the upload that they are sent to, or "".
func (a *api) messages(w http.ResponseWriter, r *http.Request, uploadID string) ([]bodyMessage, error) {
	lines, err := isLines(r)
	if err != nil {
		return nil, err
	}
	body, err := a.body(w, r)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if !lines {
		m, err := a.parse(uploadID, body, 0, now)
		return []bodyMessage{m}, err
	}
	var all []bodyMessage
	line := 0
	for data := range bytes.Lines(body) {
		line++
		if len(bytes.Trim(data, jsonSpace)) == 0 {
			continue
		}
		m, err := a.parse(uploadID, data, line, now)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func (a *api) parse(uploadID string, data []byte, line int, now time.Time) (bodyMessage, error) {
	e, err := manager.Parse(uploadID, data, now)
	// What is sent is what counts: the manager must not find a message too large after others of the same
	// body are out.
	if n, most := len(e.Payload()), a.opt.MaxMessageBytes; err == nil && n > most {
		err = newProblem(http.StatusBadRequest,
			fmt.Sprintf("the message has %d bytes, at most %d are allowed", n, most))
	}
	m := bodyMessage{e, line}
	if err != nil {
		return bodyMessage{}, m.refused(err, false)
	}
	return m, nil
}

// body reads a request's body, which must not be blank.
func (a *api) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(a.opt.MaxBodyBytes)))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, newProblem(http.StatusBadRequest,
			fmt.Sprintf("the body is too large, at most %d bytes are allowed", tooLarge.Limit))
	case err != nil:
		return nil, newProblem(http.StatusBadRequest, "the body ended before it was complete")
	case len(bytes.Trim(body, jsonSpace)) == 0:
		return nil, newProblem(http.StatusBadRequest, "the body is empty, it must hold a message")
	}
	return body, nil
}

// isLines reports whether a request's body has one message a line.
func isLines(r *http.Request) (bool, error) {
	given := r.Header.Get("Content-Type")
	kind, _, err := mime.ParseMediaType(given)
	coding := r.Header.Get("Content-Encoding")
	switch {
	case coding != "" && coding != "identity":
		return false, unsupported("Content-Encoding")
	case given == "" || err == nil && kind == "application/json":
		return false, nil
	case err == nil && kind == "application/x-ndjson":
		return true, nil
	}
	return false, unsupported("Content-Type")
}

func unsupported(field string) *apiProblem {
	p := newProblem(http.StatusUnsupportedMediaType, field+" is none that is understood; "+
		"send one message as application/json, or one a line as application/x-ndjson, without a content encoding")
	p.Field = field
	p.header.Set("Accept-Post", "application/json, application/x-ndjson")
	return p
}

package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/reload"
	"github.com/shoal-go/shoal/manager"
)

// bodyMessage is a validated message of a request body.
type bodyMessage struct {
	manager.Encoded
	// line is its line in the body, from 1; 0 in a body that is one message.
	line int
}

// refused returns the error of a message with its line, if it has one. partial says whether messages of earlier lines
// have been published.
func (m bodyMessage) refused(err error, partial bool) error {
	if m.line == 0 {
		return err
	}
	return &lineError{m.line, err, partial}
}

// jsonSpace are the characters that JSON permits around a value.
const jsonSpace = " \t\r\n"

// messages reads and validates the whole body of a request: one message, or one per line. Without an error there is at
// least one. uploadID is the upload of the messages, or "".
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
	// The limit applies to the payload that is sent: the manager must not refuse a message after earlier messages of
	// the same body have been published.
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

// body reads the body of a request, which must not be blank, without a byte order mark.
func (a *api) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(a.maxBodyBytes)))
	body = reload.TrimBOM(body)
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

// isLines reports whether the body of a request has one message per line.
func isLines(r *http.Request) (bool, error) {
	given := r.Header.Values("Content-Type")
	coding := r.Header.Get("Content-Encoding")
	switch {
	case coding != "" && coding != "identity":
		return false, unsupported("Content-Encoding")
	case len(given) == 0 || len(given) == 1 && given[0] == "":
		return false, nil
	case len(given) > 1:
		return false, unsupported("Content-Type")
	}
	kind, parameters, err := mime.ParseMediaType(given[0])
	if charset, has := parameters["charset"]; err != nil || has && !strings.EqualFold(charset, "utf-8") {
		return false, unsupported("Content-Type")
	}
	switch kind {
	case "application/json":
		return false, nil
	case "application/x-ndjson":
		return true, nil
	}
	return false, unsupported("Content-Type")
}

func unsupported(field string) *apiProblem {
	p := newProblem(http.StatusUnsupportedMediaType, field+" is not supported; send one message as application/json, or "+
		"one per line as application/x-ndjson, in UTF-8 and without a content encoding")
	p.Field = field
	p.header.Set("Accept-Post", "application/json, application/x-ndjson")
	return p
}

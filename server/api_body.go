package server

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/reload"
	"github.com/shoal-go/shoal/manager"
)

// bodyMessage is a validated message of a request body.
type bodyMessage struct {
	manager.Encoded
	// uploadID is the upload that the message is sent to, or "" if it is sent to a user.
	uploadID string
	// line is its line in the body, from 1; 0 in a body that is one message.
	line int
}

// refused returns the error of a message with its line, if it has one, and the lines published before it, if any.
func (m bodyMessage) refused(err error, before *published) error {
	if m.line == 0 {
		return err
	}
	return &lineError{m.line, err, before}
}

// jsonSpace are the characters that JSON permits around a value.
const jsonSpace = " \t\r\n"

// messages reads and validates the whole body of a request: one message, or one per line. Without an error there is at
// least one. uploadID is the upload of the messages, or "". once is the key of the request, if it has one.
func (a *api) messages(
	w http.ResponseWriter, r *http.Request, uploadID string, share *bodyShare,
) (all []bodyMessage, once manager.Once, err error) {
	kind, err := contentType(r, jsonType, ndjsonType)
	if err != nil {
		return nil, once, err
	}
	body, err := a.body(w, r, share)
	if err != nil {
		return nil, once, err
	}
	if once, err = onceOf(r, body); err != nil {
		return nil, once, err
	}
	now := time.Now()
	if kind == jsonType {
		m, err := a.parse(uploadID, body, now)
		if err == nil {
			err = share.takeMessage(m)
		}
		return []bodyMessage{m}, once, err
	}
	const most = 1024 // lines may be blank, and millions of them must not reserve memory
	all = make([]bodyMessage, 0, min(bytes.Count(body, []byte("\n"))+1, most))
	for line, data := range nonBlankLines(body) {
		if len(all) == maxManyMessages {
			return nil, once, bodyMessage{line: line}.refused(tooLarge(
				"the body has more than %d messages; send several requests", maxManyMessages), nil)
		}
		m, err := a.parse(uploadID, data, now)
		m.line = line
		if err == nil {
			err = share.takeMessage(m)
		}
		if err != nil {
			return nil, once, m.refused(err, nil)
		}
		all = append(all, m)
	}
	return all, once, nil
}

// nonBlankLines iterates over the lines of a body that are not blank, with their numbers from 1.
func nonBlankLines(body []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		line := 0
		for data := range bytes.Lines(body) {
			line++
			if data = bytes.Trim(data, jsonSpace); len(data) > 0 && !yield(line, data) {
				return
			}
		}
	}
}

// parse validates a message for an upload, or for a user if uploadID is "".
func (a *api) parse(uploadID string, data []byte, now time.Time) (bodyMessage, error) {
	// The members of an object take many times its bytes.
	if err := a.checkSize(bytes.Trim(data, jsonSpace)); err != nil {
		return bodyMessage{}, err
	}
	e, err := a.manager.Parse(uploadID, data, now)
	// The limit applies to the payload that is sent: the manager must not refuse a message after earlier messages of
	// the same body have been published.
	if err == nil {
		err = a.checkSize(e.Payload())
	}
	return bodyMessage{Encoded: e, uploadID: uploadID}, err
}

func (a *api) checkSize(message []byte) error {
	if n, most := len(message), a.opt.MaxMessageBytes; n > most {
		return tooLarge("the message has %d bytes, at most %d are allowed", n, most)
	}
	return nil
}

// tooLarge is the problem of a body that exceeds a limit.
func tooLarge(format string, args ...any) *apiProblem {
	return newProblem(http.StatusRequestEntityTooLarge, fmt.Sprintf(format, args...))
}

// maxReservedBytes bounds the memory that a request body gets before it has come.
const maxReservedBytes = 64 << 10

// body reads the body of a request, which must not be blank, without a byte order mark. The time for the answer begins
// with its end.
func (a *api) body(w http.ResponseWriter, r *http.Request, share *bodyShare) ([]byte, error) {
	// A client that does not wait for 100 Continue is sending, and may get a reset in place of an early answer.
	if r.Header.Get("Expect") != "" && r.ContentLength > int64(a.maxBodyBytes) {
		return nil, a.bodyTooLarge()
	}
	body, err := share.read(http.MaxBytesReader(w, r.Body, int64(a.maxBodyBytes)), r.ContentLength, a.maxBodyBytes)
	restartAnswer(w, r)
	if err != nil {
		return nil, a.bodyProblem(err)
	}
	body = reload.TrimBOM(body)
	if len(bytes.Trim(body, jsonSpace)) == 0 {
		return nil, newProblem(http.StatusBadRequest, "the body is empty, it must hold a message")
	}
	return body, nil
}

// bodyProblem is the problem of a body that could not be read.
func (a *api) bodyProblem(err error) *apiProblem {
	var (
		exceeded *http.MaxBytesError
		own      *apiProblem
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &exceeded):
		return a.bodyTooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return newProblem(http.StatusRequestTimeout, "the body did not arrive in time; send the request again")
	}
	return newProblem(http.StatusBadRequest, "the body ended before it was complete")
}

func (a *api) bodyTooLarge() *apiProblem {
	return tooLarge("the body is too large, at most %d bytes are allowed", a.maxBodyBytes)
}

// The content types of request bodies.
const (
	jsonType   = "application/json"
	ndjsonType = "application/x-ndjson"
)

// contentType returns the type of a request's body, which must be one of those accepted; the first one if the request
// does not name it and that is JSON.
func contentType(r *http.Request, accepted ...string) (string, error) {
	given := r.Header.Values("Content-Type")
	coded := slices.ContainsFunc(r.Header.Values("Content-Encoding"), func(coding string) bool {
		return coding != "" && !strings.EqualFold(coding, "identity")
	})
	switch {
	case coded:
		return "", unsupported("Content-Encoding", accepted)
	case len(given) == 0 || len(given) == 1 && given[0] == "":
		if accepted[0] == jsonType {
			return jsonType, nil
		}
		return "", unsupported("Content-Type", accepted)
	case len(given) > 1:
		return "", unsupported("Content-Type", accepted)
	case slices.Contains(accepted, given[0]): // as most clients write it
		return given[0], nil
	}
	kind, parameters, err := mime.ParseMediaType(given[0])
	charset, has := parameters["charset"]
	if err != nil || has && !strings.EqualFold(charset, "utf-8") || !slices.Contains(accepted, kind) {
		return "", unsupported("Content-Type", accepted)
	}
	return kind, nil
}

// unsupported is the problem of a body in another form than the accepted content types.
func unsupported(field string, accepted []string) *apiProblem {
	forms := map[string]string{jsonType: "one message as " + jsonType, ndjsonType: "one per line as " + ndjsonType}
	all := make([]string, len(accepted))
	for i, kind := range accepted {
		all[i] = forms[kind]
	}
	p := newProblem(http.StatusUnsupportedMediaType, field+" is not supported; send "+strings.Join(all, ", or ")+
		", in UTF-8 and without a content encoding")
	p.Field = field
	p.header.Set("Accept-Post", strings.Join(accepted, ", "))
	if field == "Content-Encoding" {
		p.header.Set("Accept-Encoding", "identity") // RFC 9110, 12.5.3
	}
	return p
}

package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/service"
)

const (
	// maxAnswerBytes bounds the part of an answer that is read.
	maxAnswerBytes = 64 << 10
	// maxPublishBytes bounds the messages of one Publish.
	maxPublishBytes = 64 << 20
)

// APIError is a refusal of the HTTP API. It matches ErrUnauthorized for 401, ErrForbidden for 403, and ErrNotShoal if
// the answer is not one of a Shoal server.
type APIError struct {
	// Status is the HTTP status.
	Status int
	// Detail names the problem, without the line. It is printable.
	Detail string
	// Field is the wrong field of a message, or "".
	Field string
	// Line is the number of the wrong message in the call, from 1, or 0 if no single message is to blame. The messages
	// before it are published if the status is 500 or higher, otherwise none is.
	Line int

	kind error
}

func (e *APIError) Error() string {
	return fmt.Sprintf("client: %s (HTTP status %d)", e.Detail, e.Status)
}

// Unwrap returns the variable that the error matches, or nil.
func (e *APIError) Unwrap() error { return e.kind }

// Publish publishes messages to an upload, in order, and returns the position of the last one. A message is a []byte or
// json.RawMessage with a JSON object, or a value that json.Marshal makes one; it needs an "action". If a message is
// invalid, none is published.
//
// Publish blocks until the server has accepted the messages. While the server is out of reach or unavailable it tries
// again, for up to Options.PublishTimeout and with the same Idempotency-Key, so that each message is published once. A
// server whose broker does not support such keys may publish twice if an answer is lost. The error is an *APIError for
// a refusal, an *UnreachableError if the time is over, the error of ctx, or at once that of a connection that another
// attempt cannot open either: the URL has the wrong scheme or host, or the server's certificate is not valid.
func (c *Client) Publish(ctx context.Context, uploadID string, messages ...any) (Position, error) {
	if err := c.mayPublish(uploadID); err != nil {
		return Position{}, err
	}
	lines, err := encodeLines(messages)
	if err != nil {
		return Position{}, err
	}
	address := c.url.JoinPath("v1", "uploads", url.PathEscape(uploadID), "messages")
	p := publication{client: c, url: address.String(), lines: lines}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	at, err := p.send(ctx)
	if c.ctx.Err() != nil && err != nil {
		err = ErrClosed
	}
	return at, err
}

func (c *Client) mayPublish(uploadID string) error {
	switch err := checkID(uploadID); {
	case err != nil:
		return err
	case uploadID == "." || uploadID == "..":
		return fmt.Errorf("client: the upload id %q cannot be part of a URL", uploadID)
	case c.opt.APIKey == "":
		return errors.New("client: Options.APIKey is empty, want a key of the HTTP API")
	case c.ctx.Err() != nil:
		return ErrClosed
	}
	return nil
}

// encodeLines returns each message as one line of JSON.
func encodeLines(messages []any) ([][]byte, error) {
	if len(messages) == 0 {
		return nil, errors.New("client: there is no message to publish")
	}
	lines, size := make([][]byte, len(messages)), 0
	for i, m := range messages {
		line, err := encodeLine(m)
		if err != nil {
			return nil, fmt.Errorf("client: message %d cannot be encoded: %w", i+1, err)
		}
		lines[i] = line
		if size += len(line) + 1; size > maxPublishBytes {
			return nil, fmt.Errorf("client: the messages have more than %d bytes, publish them in parts", maxPublishBytes)
		}
	}
	return lines, nil
}

func encodeLine(message any) ([]byte, error) {
	raw, ok := message.([]byte)
	if own, isRaw := message.(json.RawMessage); isRaw {
		raw, ok = own, true
	}
	var err error
	switch {
	case !ok:
		raw, err = json.Marshal(message)
	case bytes.IndexByte(raw, '\n') >= 0:
		var b bytes.Buffer
		err = json.Compact(&b, raw)
		raw = b.Bytes()
	}
	if err == nil && len(bytes.TrimSpace(raw)) == 0 {
		err = errors.New("it is empty")
	}
	return raw, err
}

// publication is one call of Publish.
type publication struct {
	client    *Client
	url       string
	lines     [][]byte
	published int // lines that are known to be published
	// keyless: the server does not support keys, so that a repetition must leave out the published lines.
	keyless bool
}

// skipped returns the number of lines that the next request leaves out.
func (p *publication) skipped() int {
	if p.keyless {
		return p.published
	}
	return 0
}

// send sends the lines until they are accepted or refused.
func (p *publication) send(ctx context.Context) (Position, error) {
	opt := &p.client.opt
	begun, key := time.Now(), rand.Text()
	r := retries{opt: opt}
	for {
		at, e := p.attempt(ctx, key)
		if e.err == nil {
			return at, nil
		}
		var refused *APIError
		if errors.As(e.err, &refused) {
			if !e.final {
				p.published = max(p.published, refused.Line-1)
			}
			if refused.Status == http.StatusNotImplemented && !p.keyless {
				p.keyless = true
				continue
			}
		}
		left := opt.PublishTimeout - time.Since(begun)
		switch {
		case e.final:
			return at, e.err
		case ctx.Err() != nil:
			return at, ctx.Err()
		case left <= 0:
			return at, &UnreachableError{max(opt.PublishTimeout, 0), p.published, e.err}
		}
		delay := min(r.backoff(e), left)
		opt.OnRetry(e.err, delay)
		if !sleep(ctx, delay) {
			return at, ctx.Err()
		}
	}
}

// attempt sends one request. Its ending is final if another attempt cannot succeed.
func (p *publication) attempt(ctx context.Context, key string) (at Position, e ending) {
	ctx, cancel := context.WithTimeout(ctx, p.client.opt.ConnectTimeout)
	defer cancel()
	lines := p.lines[p.skipped():]
	body := append(bytes.Join(lines, []byte("\n")), '\n')
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return at, ending{err: fmt.Errorf("client: %w", service.WithoutURL(err)), final: true}
	}
	request.Header.Set("Authorization", "Bearer "+p.client.opt.APIKey)
	request.Header.Set("Content-Type", "application/x-ndjson")
	if p.client.opt.PublishTimeout > 0 && !p.keyless {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := p.client.opt.HTTPClient.Do(request)
	if err != nil {
		return at, p.client.unreached(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if response.StatusCode != http.StatusAccepted {
		return at, p.refused(response, answer)
	}
	if err != nil {
		return at, ending{err: fmt.Errorf("client: the answer broke off: %w", err)}
	}
	var accepted struct {
		Accepted int `json:"accepted"`
		Position
	}
	if json.Unmarshal(answer, &accepted) != nil || accepted.Accepted != len(lines) {
		e := &APIError{Status: response.StatusCode, Detail: "the answer is not that of a shoal server", kind: ErrNotShoal}
		return at, ending{err: e, final: true}
	}
	p.client.mu.Lock()
	defer p.client.mu.Unlock()
	p.client.accepted = true
	return accepted.Position, ending{}
}

// explained returns the text of an answer that is not a problem, to be appended to the status, or "" if it is no short
// line.
func explained(body []byte) string {
	const most = 100
	text := quoted(string(body))
	if text == "" || len(text) > most || text[0] == '<' || text[0] == '{' {
		return ""
	}
	return ": " + text
}

// refused returns the ending for an answer that is not 202.
func (p *publication) refused(response *http.Response, body []byte) ending {
	var problem struct {
		Detail string `json:"detail"`
		Field  string `json:"field"`
		Line   int    `json:"line"`
	}
	e := &APIError{Status: response.StatusCode}
	if json.Unmarshal(body, &problem) != nil || problem.Detail == "" {
		e.Detail = "the server answered " + quoted(response.Status) + explained(body)
		e.kind = ErrNotShoal
	} else {
		e.Detail, e.Field = quoted(problem.Detail), quoted(problem.Field)
		if problem.Line > 0 && problem.Line <= len(p.lines)-p.skipped() {
			e.Line = p.skipped() + problem.Line
			e.Detail = strings.TrimPrefix(e.Detail, fmt.Sprintf("line %d: ", problem.Line))
		}
	}
	switch response.StatusCode {
	case http.StatusUnauthorized:
		e.kind = ErrUnauthorized
	case http.StatusForbidden:
		e.kind = ErrForbidden
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e.kind = nil
		return ending{err: e, retryAfter: retryAfter(response)}
	}
	return ending{err: e, final: true}
}

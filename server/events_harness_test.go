package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// stream is an EventSource as the standard describes it.
type stream struct {
	t     testing.TB
	resp  *http.Response
	lines *bufio.Reader
	// lastID and retry are the state of an EventSource.
	lastID, retry string
	comments      int
}

// sseEvent is one event. kind is "" for a message.
type sseEvent struct{ kind, data, id string }

// events requests an event stream, with the token of a user unless it is "".
func (n *node) events(user, path string, header ...string) *stream {
	n.t.Helper()
	h := http.Header{}
	if user != "" {
		h.Set("Authorization", "Bearer "+user)
	}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DialContext: n.dial, DisableKeepAlives: true}
	return request(n.t, n.patienceContext(), transport, "http://"+n.host, http.MethodGet, path, h)
}

func (n *node) patienceContext() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), n.patience)
	n.t.Cleanup(cancel)
	return ctx
}

func request(
	t testing.TB, ctx context.Context, transport http.RoundTripper, base, method, path string, h http.Header,
) *stream {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = h
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return &stream{t: t, resp: resp, lines: bufio.NewReader(resp.Body)}
}

// problem reads a problem, which must have the status.
func (s *stream) problem(status int) (p struct{ Detail, Field, Code string }) {
	s.t.Helper()
	body, err := io.ReadAll(s.resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.resp.StatusCode != status || s.resp.Header.Get("Content-Type") != "application/problem+json" {
		s.t.Fatalf("answered with %s, %s: %s; want a problem with %d", s.resp.Status, s.resp.Header.Get("Content-Type"), body,
			status)
	}
	if err := json.Unmarshal(body, &p); err != nil || p.Detail == "" {
		s.t.Fatalf("%s: %v", body, err)
	}
	return p
}

// tryNext returns the next event, or an error at the end of the stream.
func (s *stream) tryNext() (e sseEvent, err error) {
	var data []string
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return sseEvent{}, err
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data != nil:
			e.data, e.id = strings.Join(data, "\n"), s.lastID
			return e, nil
		case line == "":
			e.kind = ""
		case name == "":
			s.comments++
		case name == "data":
			data = append(data, value)
		case name == "event":
			e.kind = value
		case name == "id":
			s.lastID = value
		case name == "retry":
			s.retry = value
		default:
			s.t.Fatalf("line %q in the stream", line)
		}
	}
}

func (s *stream) next() sseEvent {
	s.t.Helper()
	if s.resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(s.resp.Body)
		s.t.Fatalf("answered with %s: %s", s.resp.Status, body)
	}
	e, err := s.tryNext()
	if err != nil {
		s.t.Fatalf("reading: %v", err)
	}
	return e
}

// object returns the data of the next event.
func (s *stream) object() map[string]any {
	s.t.Helper()
	var o map[string]any
	e := s.next()
	if err := json.Unmarshal([]byte(e.data), &o); err != nil {
		s.t.Fatalf("%s: %v", e.data, err)
	}
	return o
}

// want reads the next messages, which must be these.
func (s *stream) want(messages ...string) {
	s.t.Helper()
	for _, m := range messages {
		if got := s.next(); got.kind != "" || got.data != m {
			s.t.Fatalf("got  %q\nwant %s", got, m)
		}
	}
}

// subscribed reads an acknowledgement.
func (s *stream) subscribed(uploadID string, recovered bool) {
	s.t.Helper()
	got := s.object()
	if got["action"] != "subscribed" || got["upload_id"] != uploadID || got["recovered"] != recovered {
		s.t.Fatalf("got %v, want subscribed %s with recovered %v", got, uploadID, recovered)
	}
}

// wantClose reads the last event and the end of the stream, and returns the events before.
func (s *stream) wantClose(data string) (before []sseEvent) {
	s.t.Helper()
	for {
		e, err := s.tryNext()
		if err != nil {
			s.t.Fatalf("the stream ended with %v after %v, want a close event", err, before)
		}
		if e.kind != "close" {
			before = append(before, e)
			continue
		}
		if e.data != data {
			s.t.Fatalf("closed with %s, want %s", e.data, data)
		}
		if _, err := s.tryNext(); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			s.t.Fatalf("after the close event: %v, want the end of the stream", err)
		}
		return before
	}
}

// leave ends the connection from the client's side.
func (s *stream) leave() { _ = s.resp.Body.Close() }

// several returns the path of a stream of several uploads.
func several(ids ...string) string {
	return "/events/uploads?" + url.Values{"id": ids}.Encode()
}

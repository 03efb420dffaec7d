package server

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

const ndjson = "application/x-ndjson"

func TestAPI_PublishesOneMessage(t *testing.T) {
	for _, kind := range []string{"", "application/json", "Application/JSON; charset=utf-8"} {
		a := newAPITest(t, apiOptions{})
		a.want(a.call("POST", "/v1/uploads/up-1/messages", kind, " "+failed+"\n"), 202,
			`{"accepted":1,"epoch":"EPOCH","offset":1}`)
		a.want(a.call("GET", "/v1/uploads/up-1", "", ""), 200,
			`{"upload_id":"up-1","epoch":"EPOCH","offset":1,"message":`+
				strings.Replace(failed, `"error`, `"upload_id":"up-1","error`, 1)+`}`)
	}
}

func TestAPI_PublishesLinesInOrder(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	body := "\n" + `{"action":"a", "x":"<&>"}` + "\r\n \n" + `{"action":"b"}` + "\n\n" + `{"action":"c"}`
	a.want(a.call("POST", "/v1/uploads/up-1/messages", ndjson+"; charset=utf-8", body), 202,
		`{"accepted":3,"epoch":"EPOCH","offset":3}`)
	a.want(a.call("GET", "/v1/uploads/up-1/messages", "", ""), 200,
		`{"upload_id":"up-1","epoch":"EPOCH","offset":3,"recovered":true,"messages":[`+
			`{"offset":1,"message":{"action":"a", "x":"<&>"}},{"offset":2,"message":{"action":"b"}},`+
			`{"offset":3,"message":{"action":"c"}}]}`)
}

func TestAPI_RefusesBodies(t *testing.T) {
	const percent = `{"action":"upload_progress","payload":{"status":"pending","stage":"queued","message":"","progress_percent":101}}`
	large := `{"action":"note","text":"` + strings.Repeat("x", 1000) + `"}`
	for _, test := range []struct {
		name, kind, body string
		status           int
		field            string
		line             int
		detail           string
	}{
		{"empty", "", "", 400, "", 0, "the body is empty"},
		{"blank", "", " \n", 400, "", 0, "the body is empty"},
		{"no lines", ndjson, "\n \r\n", 400, "", 0, "the body is empty"},
		{"invalid JSON", "", `{"action":"note"`, 400, "", 0, "the message is not valid JSON: unexpected end"},
		{"two messages", "", note + "\n" + note, 400, "", 0, "the message is not valid JSON"},
		{"unknown value", "", strings.Replace(percent, "queued", "Queued", 1), 400, "payload.stage", 0,
			`payload.stage is "Queued", must be 1 to 64 characters of a-z 0-9 _ - .`},
		{"other upload", "", `{"action":"upload_failed","error_message":"","upload_id":"up-2"}`, 400, "upload_id", 0,
			"must be the id of the upload"},
		{"large message", "", large, 413, "", 0, "the message has 1027 bytes, at most 1000 are allowed"},
		{"large before it is decoded", "", "{" + strings.Repeat(" ", 999) + "x", 413, "", 0, "the message has 1001 bytes"},
		{"large body", "", large + strings.Repeat(" ", 4000), 413, "", 0, "the body is too large, at most 4096 bytes"},
		{"bad line", ndjson, note + "\n\n" + percent + "\n", 400, "payload.progress_percent", 3,
			"line 3: payload.progress_percent must be a number from 0 to 100"},
		{"line of invalid JSON", ndjson, note + "\n{", 400, "", 2, "line 2: the message is not valid JSON"},
		{"line of another space", ndjson, note + "\n\u00a0\n", 400, "", 2, "line 2: the message is not valid JSON"},
		{"message over two lines", ndjson, "{\n}", 400, "", 1, "line 1: the message is not valid JSON"},
		{"large line", ndjson, note + "\n" + large, 413, "", 2, "line 2: the message has 1027 bytes"},
		{"large once it is complete", ndjson, note + "\n" + `{"action":"upload_failed","error_message":"` +
			strings.Repeat("x", 940) + `"}`, 413, "", 2, "line 2: the message has 10"},
		{"form", "application/x-www-form-urlencoded", note, 415, "Content-Type", 0, "application/x-ndjson"},
		{"text", "text/plain", note, 415, "Content-Type", 0, "application/json"},
		{"malformed type", "application/json; charset", note, 415, "Content-Type", 0, "Content-Type"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAPITest(t, apiOptions{MaxMessageBytes: 1000})
			a.api.maxBodyBytes = 4096
			w := a.call("POST", "/v1/uploads/up-1/messages", test.kind, test.body)
			a.wantProblem(w, test.status, test.field, test.line, test.detail)
			a.wantNothingPublished()
			if strings.Contains(w.Body.String(), "xxx") {
				t.Errorf("the answer repeats the payload: %s", w.Body)
			}
			if accept := w.Header().Get("Accept-Post"); (test.status == 415) != (accept != "") {
				t.Errorf("Accept-Post %q with status %d", accept, w.Code)
			}
		})
	}
}

func TestAPI_RefusesBodiesThatItCannotRead(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	r := httptest.NewRequest("POST", "/v1/uploads/up-1/messages", strings.NewReader(note))
	r.Header.Set("Authorization", "Bearer first-key")
	r.Header.Set("Content-Encoding", "gzip")
	w := a.do(r)
	a.wantProblem(w, 415, "Content-Encoding", 0, "without a content encoding")
	if accept := w.Header().Get("Accept-Encoding"); accept != "identity" {
		t.Errorf("Accept-Encoding %q", accept)
	}

	r = httptest.NewRequest("POST", "/v1/uploads/up-1/messages", iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(note))))
	r.Header.Set("Authorization", "Bearer first-key")
	a.wantProblem(a.do(r), 400, "", 0, "ended before it was complete")

	a.api.maxBodyBytes = len(note) - 1
	r = httptest.NewRequest("POST", "/v1/uploads/up-1/messages", strings.NewReader(note))
	r.ContentLength = -1 // chunked
	r.Header.Set("Authorization", "Bearer first-key")
	a.wantProblem(a.do(r), 413, "", 0, "the body is too large, at most 16 bytes are allowed")
	a.wantNothingPublished()
}

func TestAPI_TakesMessagesUpToItsBounds(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	message := `{"action":"note","text":"` + strings.Repeat("x", 64<<10-27) + `"}`
	if w := a.call("POST", "/v1/uploads/up-1/messages", "", message); len(message) != 64<<10 || w.Code != 202 {
		t.Errorf("%d bytes: %d %s", len(message), w.Code, w.Body)
	}
	lines := strings.Repeat(message+"\n", 100)
	if w := a.call("POST", "/v1/uploads/up-1/messages", ndjson, lines); w.Code != 202 {
		t.Errorf("%d bytes: %d %s", len(lines), w.Code, w.Body)
	}
}

// A line of a few bytes takes many times as much memory, so the lines are bounded beside the bytes.
func TestAPI_BoundsLines(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	lines := strings.Repeat(note+"\n\n", maxManyMessages)
	for _, path := range []string{"/v1/uploads/up-1/messages", "/v1/users/ann/messages"} {
		w := a.call("POST", path, ndjson, lines+note)
		a.wantProblem(w, 413, "", 2*maxManyMessages+1, "more than 10000 messages; send several requests")
	}
	a.wantNothingPublished()
	a.want(a.call("POST", "/v1/uploads/up-1/messages", ndjson, lines), 202,
		`{"accepted":10000,"epoch":"EPOCH","offset":10000}`)
	a.want(a.call("POST", "/v1/users/ann/messages", ndjson, lines), 202, `{"queued":0,"conflated":0,"dropped":0}`)
}

// The bodies of all requests are bounded together, with their messages, and none of a request is left in the account.
func TestAPI_BoundsBodiesTogether(t *testing.T) {
	for _, path := range []string{"/v1/uploads/up-1/messages", "/v1/users/ann/messages", "/v1/messages"} {
		body := strings.Repeat(note+"\n", 10)
		if path == "/v1/messages" {
			body = strings.Repeat(manyLine("up-1", note)+"\n", 10)
		}
		a := newAPITest(t, apiOptions{})
		others := a.api.bodies.share()
		for _, test := range []struct {
			left, line int
		}{{0, 0}, {len(body), 0}, {len(body) + 1, 1}, {len(body) + 1 + 9*messageOverhead, 9}} {
			if err := others.take(int(a.api.bodies.limit-a.api.bodies.used.Load()) - test.left); err != nil {
				t.Fatal(err)
			}
			w := a.call("POST", path, ndjson, body)
			a.wantProblem(w, 503, "", test.line, "take too much memory")
			if w.Header().Get("Retry-After") == "" {
				t.Error("there is no Retry-After")
			}
			a.wantNothingPublished()
		}
		others.release()
		if w := a.call("POST", path, ndjson, body); w.Code != 202 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if used := a.api.bodies.used.Load(); used != 0 {
			t.Errorf("%s: %d bytes are left in the account", path, used)
		}
	}
}

// budgetReader is a body that compares the room of each read with the budget.
type budgetReader struct {
	*strings.Reader
	t      *testing.T
	budget *bodyBudget
	last   int64 // used at the last read
}

func (r *budgetReader) Read(p []byte) (int, error) {
	r.last = r.budget.used.Load()
	if read := r.Size() - int64(r.Len()); r.last < read+int64(len(p)) {
		r.t.Errorf("%d bytes are counted of a buffer with room for %d", r.last, read+int64(len(p)))
	}
	return r.Reader.Read(p)
}

// A body counts with its whole buffer. The buffer for a body of known length is no larger than the body.
func TestAPI_CountsBuffersOfBodies(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	body := strings.Repeat(note+"\n", 9000)
	for _, known := range []bool{true, false} {
		reader := &budgetReader{strings.NewReader(body), t, &a.api.bodies, 0}
		r := httptest.NewRequest("POST", "/v1/uploads/up-1/messages", reader)
		r.Header.Set("Authorization", "Bearer first-key")
		r.Header.Set("Content-Type", ndjson)
		if known {
			r.ContentLength = int64(len(body))
		}
		if w := a.do(r); w.Code != 202 {
			t.Errorf("answered %d %s", w.Code, w.Body)
		}
		if known && reader.last != int64(len(body))+1 {
			t.Errorf("%d bytes are counted of a body of %d", reader.last, len(body))
		}
	}
	if used := a.api.bodies.used.Load(); used != 0 {
		t.Errorf("%d bytes are left in the account", used)
	}
}

func TestAPI_PublishesNothingOnceItIsClosed(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	if err := a.manager.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct{ method, target string }{
		{"POST", "/v1/uploads/up-1/messages"}, {"DELETE", "/v1/uploads/up-1"}, {"POST", "/v1/users/ann/messages"},
	} {
		w := a.call(call.method, call.target, "", note)
		a.wantProblem(w, 503, "", 0, "shutting down")
		if w.Header().Get("Retry-After") != "1" {
			t.Errorf("%s %s: no Retry-After", call.method, call.target)
		}
	}
	w := a.call("POST", "/v1/uploads/up-1/messages", ndjson, "\n"+note)
	a.wantProblem(w, 503, "", 2, "shutting down")
	if strings.Contains(w.Body.String(), "are published") {
		t.Errorf("no message is out: %s", w.Body)
	}
}

func TestAPI_PublishesNothingForACallerThatLeft(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest("POST", "/v1/uploads/up-1/messages", strings.NewReader(note)).WithContext(ctx)
	r.Header.Set("Authorization", "Bearer first-key")
	a.wantProblem(a.do(r), 503, "", 0, "the request ended")
	a.wantNothingPublished()
}

// endingContext ends once it has been looked at a number of times.
type endingContext struct {
	context.Context
	left int
}

func (c *endingContext) Err() error {
	c.left--
	if c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestAPI_SaysHowFarItCame(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	r := httptest.NewRequest("POST", "/v1/uploads/up-1/messages", strings.NewReader(note+"\n\n"+note+"\n"+note))
	r = r.WithContext(&endingContext{t.Context(), 1})
	r.Header.Set("Authorization", "Bearer first-key")
	r.Header.Set("Content-Type", ndjson)
	a.wantProblem(a.do(r), 503, "", 3, "line 3: the request ended before the message was published; "+
		"the messages of the earlier lines are published")
	if _, position, _ := a.manager.Newest(t.Context(), "up-1"); position.Offset != 1 {
		t.Errorf("%d messages are published", position.Offset)
	}
}

func TestAPI_History(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	const target = "/v1/uploads/up-1/messages"
	a.want(a.call("GET", target, "", ""), 200,
		`{"upload_id":"up-1","epoch":"","offset":0,"recovered":false,"messages":[]}`)
	a.call("POST", target, ndjson, `{"action":"a"}`+"\n"+`{"action":"b"}`)
	_, position, _ := a.manager.Newest(t.Context(), "up-1")

	const second = `{"offset":2,"message":{"action":"b"}}`
	const both = `{"offset":1,"message":{"action":"a"}},` + second
	for query, want := range map[string]string{
		"?since=1":                           `"recovered":true,"messages":[` + second + `]}`,
		"?since=1&epoch=" + position.Epoch:   `"recovered":true,"messages":[` + second + `]}`,
		"?since=0&epoch=" + position.Epoch:   `"recovered":true,"messages":[` + both + `]}`,
		"?since=2":                           `"recovered":true,"messages":[]}`,
		"?since=1&epoch=another":             `"recovered":false,"messages":[` + both + `]}`,
		"?since=18446744073709551615&epoch=": `"recovered":false,"messages":[` + both + `]}`,
	} {
		a.want(a.call("GET", target+query, "", ""), 200, `{"upload_id":"up-1","epoch":"EPOCH","offset":2,`+want)
	}
	for _, since := range []string{"", "-1", "+1", "1.0", "0x1", "1_000", "18446744073709551616", "%201"} {
		a.wantProblem(a.call("GET", target+"?since="+since, "", ""), 400, "since", 0, "since must be an offset")
	}
	a.wantProblem(a.call("GET", target+"?since=1&epoch=%zz", "", ""), 400, "query", 0, "malformed")
}

func TestAPI_Forgets(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	a.wantProblem(a.call("GET", "/v1/uploads/up-1", "", ""), 404, "", 0, "unknown upload")
	a.call("POST", "/v1/uploads/up-1/messages", "", failed)
	_, before, _ := a.manager.Newest(t.Context(), "up-1")
	if w := a.call("DELETE", "/v1/uploads/up-1", "", ""); w.Code != 204 || w.Body.Len() != 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	a.wantProblem(a.call("GET", "/v1/uploads/up-1", "", ""), 404, "", 0, "unknown upload")
	a.want(a.call("POST", "/v1/uploads/up-1/messages", "", note), 202, `{"accepted":1,"epoch":"EPOCH","offset":1}`)
	if _, after, _ := a.manager.Newest(t.Context(), "up-1"); after.Epoch == before.Epoch {
		t.Errorf("the epoch is still %s", after.Epoch)
	}
}

func TestAPI_Subscribers(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	a.want(a.call("GET", "/v1/uploads/up-1/subscribers", "", ""), 200, `{"upload_id":"up-1","users":[],"count":0}`)
	for _, user := range []string{"zoë", "ann <a@example.com>"} {
		if err := a.manager.SubscribeUpload(t.Context(), user, "up-1"); err != nil {
			t.Fatal(err)
		}
	}
	a.want(a.call("GET", "/v1/uploads/up-1/subscribers", "", ""), 200,
		`{"upload_id":"up-1","users":["ann <a@example.com>","zoë"],"count":2}`)
}

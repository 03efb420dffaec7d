package server

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
)

const (
	note   = `{"action":"note"}`
	failed = `{"action":"upload_failed","error_message":"no space left","timestamp":"2026-01-31T12:00:00Z"}`
)

// apiTest is the API of a manager of its own.
type apiTest struct {
	t       *testing.T
	manager *manager.Manager
	api     *api
}

func newAPITest(t *testing.T, opt apiOptions) *apiTest {
	t.Helper()
	m, err := manager.New(manager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if opt.Keys == nil {
		opt.Keys = keysOf("first-key", "second-key")
	}
	return &apiTest{t, m, newTestAPI(m, opt)}
}

func keysOf(keys ...string) func() apiKeys { return func() apiKeys { return newAPIKeys(keys) } }

// newTestAPI returns an API with defaults for the options that are not set.
func newTestAPI(m *manager.Manager, opt apiOptions) *api {
	if opt.MaxMessageBytes == 0 {
		opt.MaxMessageBytes = 64 << 10
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Stats == nil {
		opt.Stats = func() any { return m.Stats() }
	}
	return newAPI(m, opt)
}

// call sends a request that holds a key; kind is its Content-Type.
func (a *apiTest) call(method, target, kind, body string) *httptest.ResponseRecorder {
	a.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer second-key")
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	return a.do(r)
}

// do answers a request and checks the common properties of all answers.
func (a *apiTest) do(r *http.Request) *httptest.ResponseRecorder {
	a.t.Helper()
	w := httptest.NewRecorder()
	a.api.answer(w, r, a.api.authorize(r))
	kind := "application/json"
	if w.Code >= 400 {
		kind = "application/problem+json"
	}
	if w.Code != http.StatusNoContent && w.Header().Get("Content-Type") != kind {
		a.t.Errorf("Content-Type %q with status %d", w.Header().Get("Content-Type"), w.Code)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		a.t.Errorf("Cache-Control %q", w.Header().Get("Cache-Control"))
	}
	return w
}

// want checks an answer's status and body. In the body, EPOCH stands for the upload's epoch.
func (a *apiTest) want(w *httptest.ResponseRecorder, status int, body string) {
	a.t.Helper()
	_, position, _ := a.manager.Newest(context.Background(), "up-1")
	body = strings.ReplaceAll(body, "EPOCH", position.Epoch)
	if got := strings.TrimSuffix(w.Body.String(), "\n"); w.Code != status || got != body {
		a.t.Errorf("got  %d %s\nwant %d %s", w.Code, got, status, body)
	}
}

// wantProblem checks that an answer is a problem whose detail contains the text.
func (a *apiTest) wantProblem(w *httptest.ResponseRecorder, status int, field string, line int, detail string) {
	a.t.Helper()
	var p apiProblem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		a.t.Fatalf("%v: %s", err, w.Body)
	}
	if w.Code != status || p.Status != status || p.Type != "about:blank" || p.Title != http.StatusText(status) {
		a.t.Errorf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if strings.HasPrefix(p.Detail, "line ") != (line > 0) {
		a.t.Errorf("line %d: %s", line, p.Detail)
	}
	if p.Field != field || p.Line != line || !strings.Contains(p.Detail, detail) {
		a.t.Errorf("got  field %q, line %d: %s\nwant field %q, line %d: …%s…", p.Field, p.Line, p.Detail, field, line, detail)
	}
}

// wantNothingPublished checks that no message of the upload up-1 is out.
func (a *apiTest) wantNothingPublished() {
	a.t.Helper()
	if s := a.manager.Stats(); s.Published != 0 || s.Queued != 0 {
		a.t.Errorf("%d messages are published, %d are queued", s.Published, s.Queued)
	}
}

func TestAPI_Keys(t *testing.T) {
	for _, test := range []struct {
		name      string
		keys      []string
		given     string
		status    int
		challenge string
		detail    string
	}{
		{"first", []string{"first-key", "second-key"}, "Bearer first-key", 200, "", ""},
		{"second", []string{"first-key", "second-key"}, "bearer second-key", 200, "", ""},
		{"more spaces", []string{"first-key"}, "Bearer   first-key", 200, "", ""},
		{"none configured", []string{}, "Bearer first-key", 403, "", "no API key is configured"},
		{"empty one configured", []string{""}, "Bearer ", 403, "", "no API key is configured"},
		{"missing", []string{"first-key"}, "", 401, `Bearer realm="shoal"`, "API key is missing"},
		{"empty", []string{"first-key", ""}, "Bearer ", 401, `Bearer realm="shoal"`, "API key is missing"},
		{"other scheme", []string{"first-key"}, "Basic first-key", 401, `Bearer realm="shoal"`, "API key is missing"},
		{"wrong", []string{"first-key"}, "Bearer first-ke", 401, `Bearer realm="shoal", error="invalid_token"`, "not one of those"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAPITest(t, apiOptions{Keys: keysOf(test.keys...)})
			r := httptest.NewRequest("GET", "/v1/stats", nil)
			if test.given != "" {
				r.Header.Set("Authorization", test.given)
			}
			w := a.do(r)
			if w.Code != test.status || w.Header().Get("WWW-Authenticate") != test.challenge {
				t.Errorf("%d %q, want %d %q", w.Code, w.Header().Get("WWW-Authenticate"), test.status, test.challenge)
			}
			if test.detail != "" {
				a.wantProblem(w, test.status, "", 0, test.detail)
			}
			if strings.Contains(w.Body.String(), "first-ke") {
				t.Errorf("the answer repeats a key: %s", w.Body)
			}
		})
	}
}

func TestAPI_KeyIsAskedForBeforeAnythingElse(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	for _, r := range []*http.Request{
		httptest.NewRequest("POST", "/v1/uploads/up-1/messages", strings.NewReader(note)),
		httptest.NewRequest("DELETE", "/v1/uploads/up-1", nil),
		httptest.NewRequest("GET", "/v1/nothing", nil),
		httptest.NewRequest("OPTIONS", "/v1/stats", nil),
	} {
		a.wantProblem(a.do(r), 401, "", 0, "API key is missing")
	}
	a.wantNothingPublished()
}

func TestAPI_RefusesOtherPathsAndMethods(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	for _, test := range []struct {
		method, target string
		status         int
		allow, field   string
	}{
		{"GET", "/v1/", 404, "", ""},
		{"GET", "/v1/nothing", 404, "", ""},
		{"GET", "/v1/stats/", 404, "", ""},
		{"GET", "/v1//stats", 404, "", ""},
		{"GET", "/v1%2Fstats", 404, "", ""},
		{"GET", "/v1/uploads", 404, "", ""},
		{"GET", "/v1/uploads/a/b/messages", 404, "", ""},
		{"GET", "/v1/uploads/", 400, "", "upload_id"},
		{"POST", "/v1/uploads//messages", 400, "", "upload_id"},
		{"DELETE", "/v1/users//connections", 400, "", "user_id"},
		{"PUT", "/v1/uploads/a", 405, "DELETE, GET, HEAD, OPTIONS", ""},
		{"DELETE", "/v1/uploads/a/messages", 405, "GET, HEAD, OPTIONS, POST", ""},
		{"POST", "/v1/uploads/a/subscribers", 405, "GET, HEAD, OPTIONS", ""},
		{"GET", "/v1/users/a/messages", 405, "OPTIONS, POST", ""},
		{"GET", "/v1/users/a/connections", 405, "DELETE, OPTIONS", ""},
		{"POST", "/v1/stats", 405, "GET, HEAD, OPTIONS", ""},
	} {
		w := a.call(test.method, test.target, "", "")
		a.wantProblem(w, test.status, test.field, 0, "")
		if allow := w.Header().Get("Allow"); allow != test.allow {
			t.Errorf("%s %s: Allow %q, want %q", test.method, test.target, allow, test.allow)
		}
	}
}

func TestAPI_AnswersOptionsAndHead(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	if w := a.call("OPTIONS", "/v1/uploads/a/messages", "", ""); w.Code != 204 ||
		w.Header().Get("Allow") != "GET, HEAD, OPTIONS, POST" {
		t.Errorf("OPTIONS: %d %v", w.Code, w.Header())
	}
	if w := a.call("HEAD", "/v1/stats", "", ""); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}
}

func TestAPI_RefusesBadIDs(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	long := strings.Repeat("a", 256)
	for _, call := range []struct{ method, before, after, field string }{
		{"GET", "/v1/uploads/", "", "upload_id"},
		{"DELETE", "/v1/uploads/", "", "upload_id"},
		{"GET", "/v1/uploads/", "/messages", "upload_id"},
		{"POST", "/v1/uploads/", "/messages", "upload_id"},
		{"GET", "/v1/uploads/", "/subscribers", "upload_id"},
		{"POST", "/v1/users/", "/messages", "user_id"},
		{"DELETE", "/v1/users/", "/connections", "user_id"},
		{"DELETE", "/v1/tokens/", "/connections", "token_id"},
		// An id is refused before anything else of the request.
		{"GET", "/v1/uploads/", "?unknown=1", "upload_id"},
		{"DELETE", "/v1/uploads/", "?unknown=1", "upload_id"},
		{"GET", "/v1/uploads/", "/messages?since=x", "upload_id"},
		{"POST", "/v1/uploads/", "/messages?unknown=1", "upload_id"},
		{"GET", "/v1/uploads/", "/subscribers?unknown=1", "upload_id"},
		{"POST", "/v1/users/", "/messages?unknown=1", "user_id"},
		{"DELETE", "/v1/users/", "/connections?code=x", "user_id"},
		{"DELETE", "/v1/tokens/", "/connections?code=x", "token_id"},
	} {
		for id, detail := range map[string]string{
			"a%0Ab": "control characters", "%ff": "valid UTF-8", "%ED%A0%80": "valid UTF-8", "%EF%BF%BD": "U+FFFD", long: "has 256 bytes, at most 255",
		} {
			w := a.call(call.method, call.before+id+call.after, "", note)
			a.wantProblem(w, 400, call.field, 0, call.field+" ")
			a.wantProblem(w, 400, call.field, 0, detail)
		}
	}
	a.wantNothingPublished()
}

func TestAPI_TakesAnyPercentEncodedID(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	for target, id := range map[string]string{
		"a%2Fb": "a/b", "%2F": "/", "%2E%2E": "..", "%2e": ".", "a%2F%2Fb": "a//b", "..": "..", "gr%C3%B6%C3%9Fe": "größe", "größe": "größe",
		"a%20b": "a b", "a+b": "a+b", "%2525": "%25", "x%2Fmessages": "x/messages", "%3Fq%23": "?q#", "{upload_id}": "{upload_id}",
	} {
		w := a.call("POST", "/v1/uploads/"+target+"/messages", "", note)
		if _, position, _ := a.manager.Newest(t.Context(), id); w.Code != 202 || position.Offset == 0 {
			t.Errorf("%s is not the upload %q: %d %s", target, id, w.Code, w.Body)
		}
	}
}

func TestAPI_Stats(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	var stats manager.Stats
	if err := json.Unmarshal(a.call("GET", "/v1/stats", "", "").Body.Bytes(), &stats); err != nil || stats != a.manager.Stats() {
		t.Errorf("%+v, %v, want the manager's", stats, err)
	}
	a = newAPITest(t, apiOptions{Stats: func() any { return map[string]int{"open": 7} }})
	a.want(a.call("GET", "/v1/stats", "", ""), 200, `{"open":7}`)
}

func TestAPI_TellsNothingOfWhatFailedInside(t *testing.T) {
	var log bytes.Buffer
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/v1/uploads/up-1/messages", nil)
	err := &lineError{3, http.ErrHijacked, &published{Accepted: 2}}
	writeProblem(w, r, slog.New(slog.NewTextHandler(&log, nil)), err)
	(&apiTest{t: t}).wantProblem(w, 500, "", 3, "line 3: internal error; see the log of the server; the messages of the earlier lines are published")
	if strings.Contains(w.Body.String(), "hijacked") || !strings.Contains(log.String(), "hijacked") {
		t.Errorf("answered %s, logged %s", w.Body, &log)
	}
}

// terse is a broker that does not tell a message's epoch when it is stored.
type terse struct{ *broker.MemoryNode }

func (s terse) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	pos, err := s.MemoryNode.Store(ctx, channel, payload)
	return broker.Position{Offset: pos.Offset}, err
}

// newBrokerAPI returns the API of a node of a cluster, within a synctest bubble.
func newBrokerAPI(t *testing.T, b broker.Broker) *apiTest {
	t.Helper()
	m, err := manager.New(manager.Options{Broker: b})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return &apiTest{t, m, newTestAPI(m, apiOptions{Keys: keysOf("second-key")})}
}

func TestAPI_TellsTheEpochOfWhatItHasPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newBrokerAPI(t, terse{broker.NewMemory(broker.MemoryOptions{}).Node()})
		a.want(a.call("POST", "/v1/uploads/up-1/messages", "", note), 202, `{"accepted":1,"epoch":"EPOCH","offset":1}`)
		if body := a.call("POST", "/v1/uploads/up-1/messages", "", note).Body.String(); strings.Contains(body, `"epoch":""`) {
			t.Errorf("there is no epoch in %s", body)
		}
	})
}

// readCounter is a broker that counts the reads.
type readCounter struct {
	broker.HistoryBroker
	reads *atomic.Int64
}

func (c readCounter) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	c.reads.Add(1)
	return c.HistoryBroker.History(ctx, channel, since)
}

func (c readCounter) Newest(ctx context.Context, channel string) (broker.Snapshot, error) {
	c.reads.Add(1)
	return c.HistoryBroker.Newest(ctx, channel)
}

func (c readCounter) Positions(ctx context.Context, channels ...string) ([]broker.Position, error) {
	c.reads.Add(1)
	return c.HistoryBroker.Positions(ctx, channels...)
}

// The answer to a publication is what the broker has returned for it: nothing is read.
func TestAPI_PublishingReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := new(atomic.Int64)
		a := newBrokerAPI(t, readCounter{broker.NewMemory(broker.MemoryOptions{}).Node(), reads})
		for range 3 {
			if w := a.call("POST", "/v1/uploads/up-1/messages", "", note); w.Code != http.StatusAccepted || strings.Contains(w.Body.String(), `"epoch":""`) {
				t.Errorf("the answer is %d %s", w.Code, w.Body)
			}
		}
		if n := reads.Load(); n > 0 {
			t.Errorf("3 publications read %d times", n)
		}
	})
}

// away is a broker that cannot be reached.
type away struct{ broker.HistoryBroker }

func (away) Run(ctx context.Context, _ broker.Handler) error { <-ctx.Done(); return nil }

func TestAPI_WithoutItsBrokerAsksToTryAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newBrokerAPI(t, away{broker.NewMemory(broker.MemoryOptions{}).Node()})
		for _, call := range [][3]string{
			{"POST", "/v1/uploads/up-1/messages", note}, {"POST", "/v1/users/ann/messages", note},
			{"GET", "/v1/uploads/up-1", ""}, {"GET", "/v1/uploads/up-1/messages", ""}, {"DELETE", "/v1/uploads/up-1", ""},
			{"GET", "/v1/uploads/up-1/subscribers", ""}, {"GET", "/v1/nodes", ""},
			{"DELETE", "/v1/users/ann/connections", ""}, {"DELETE", "/v1/tokens/t-1/connections", ""},
		} {
			w := a.call(call[0], call[1], "", call[2])
			if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "out of reach") {
				t.Errorf("%s %s: %d %s, Retry-After %q", call[0], call[1], w.Code, w.Body, w.Header().Get("Retry-After"))
			}
		}
	})
}

// Query parameters that are unknown or given twice are refused on every endpoint.
func TestAPI_QueriesAreStrict(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	c := a.connect("ann", manager.Queued)
	for target, field := range map[string]string{
		"GET /v1/uploads/a/messages?since=1&since=2":           "since",
		"GET /v1/uploads/a/messages?since=1&epoch=e&epoch=x":   "epoch",
		"GET /v1/uploads/a/messages?sinse=1":                   "query",
		"GET /v1/uploads/a/messages?Since=1":                   "query",
		"GET /v1/uploads/a/messages?epoch=e":                   "since",
		"GET /v1/uploads/a?since=1":                            "query",
		"GET /v1/stats?x":                                      "query",
		"GET /v1/nodes?=":                                      "query",
		"DELETE /v1/users/ann/connections?code=4000&code=4001": "code",
		"DELETE /v1/users/ann/connections?reson=x":             "query",
		"DELETE /v1/tokens/t/connections?reason=x&reason=x":    "reason",
		"POST /v1/uploads/a/messages?async=true":               "query",
		"GET /v1/uploads/a/messages?since=1;epoch=2":           "query",
	} {
		method, target, _ := strings.Cut(target, " ")
		a.wantProblem(a.call(method, target, "", note), 400, field, 0, field+" ")
	}
	if len(c.closed) != 0 {
		t.Errorf("closed with %v", c.closed)
	}
	a.wantNothingPublished()
}

// One byte order mark before a document is skipped, and a body in another character set is refused.
func TestAPI_ByteOrderMarkAndCharset(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	for kind, body := range map[string]string{"": note, "application/json": note, ndjson: note + "\r\n" + note + "\r\n"} {
		if w := a.call("POST", "/v1/uploads/up-1/messages", kind, "\xef\xbb\xbf"+body); w.Code != 202 {
			t.Errorf("%s: %d %s", kind, w.Code, w.Body)
		}
	}
	if w := a.call("POST", "/v1/uploads/up-1/messages", "application/json; charset=\"UTF-8\"", note); w.Code != 202 {
		t.Errorf("UTF-8: %d %s", w.Code, w.Body)
	}
	for _, kind := range []string{"application/json; charset=utf-16", ndjson + "; charset=iso-8859-1", "application/json; charset="} {
		a.wantProblem(a.call("POST", "/v1/uploads/up-2/messages", kind, note), 415, "Content-Type", 0, "UTF-8")
	}
}

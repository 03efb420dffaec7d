package openapitest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/server"
)

const (
	jsonType   = "application/json"
	ndjsonType = "application/x-ndjson"
	note       = `{"action":"note","text":"hello"}`
	progress   = `{"action":"upload_progress","payload":{"status":"analyzing","stage":"queued","progress_percent":42,` +
		`"message":"Looking","error_message":null,"description_audit_score":null}}`
	failed = `{"action":"upload_failed","error_message":"no space left","timestamp":"2026-01-31T12:00:00Z"}`
)

// call is a request to an operation of the description.
type call struct {
	operation, method, target, kind, body string
	header                                http.Header
}

// valid returns a valid request of every operation.
func valid() []call {
	return []call{
		{"publish", "POST", "/v1/uploads/up-1/messages", jsonType, progress, nil},
		{"publishMany", "POST", "/v1/messages", ndjsonType, `{"upload_ids":["up-1","up-2"],"message":` + note + `}`, nil},
		{"history", "GET", "/v1/uploads/up-1/messages", "", "", nil},
		{"newest", "GET", "/v1/uploads/up-1", "", "", nil},
		{"subscribers", "GET", "/v1/uploads/up-1/subscribers", "", "", nil},
		{"forget", "DELETE", "/v1/uploads/up-9", "", "", nil},
		{"sendToUser", "POST", "/v1/users/ann/messages", jsonType, note, nil},
		{"disconnectUser", "DELETE", "/v1/users/ann/connections", "", "", nil},
		{"disconnectToken", "DELETE", "/v1/tokens/t-1/connections", "", "", nil},
		{"stats", "GET", "/v1/stats", "", "", nil},
		{"nodes", "GET", "/v1/nodes", "", "", nil},
		{"describe", "GET", "/v1/openapi.json", "", "", nil},
	}
}

// suite sends requests and validates them and their answers.
type suite struct {
	*testing.T
	router routers.Router
	// left are the documented answers that no request has had, as "operation status".
	left []string
}

// newSuite returns the suite of a server's description, which must be valid itself.
func newSuite(t *testing.T, url string) *suite {
	t.Helper()
	response, err := http.Get(url + "/v1/openapi.json") // of a server in this process
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	document, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := document.Validate(t.Context()); err != nil {
		t.Fatalf("the description is not valid: %v", err)
	}
	// Requests go to the address of whichever server a test has started.
	document.Servers = nil
	router, err := legacy.NewRouter(document)
	if err != nil {
		t.Fatal(err)
	}
	return &suite{t, router, documented(t, text)}
}

// documented returns the answers that a description names, as "operation status".
func documented(t *testing.T, text []byte) (all []string) {
	t.Helper()
	var d struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	for _, item := range d.Paths {
		for method, text := range item {
			var o struct {
				OperationID string
				Responses   map[string]any
			}
			if method == "parameters" {
				continue
			}
			if err := json.Unmarshal(text, &o); err != nil {
				t.Fatal(err)
			}
			if len(o.Responses) == 0 {
				t.Errorf("no answers of the operation %s are described", o.OperationID)
			}
			for status := range o.Responses {
				all = append(all, o.OperationID+" "+status)
			}
		}
	}
	slices.Sort(all)
	return all
}

// send sends a request, which the description must allow if allowed, and refuse if not, and checks that its answer has
// the status and is described.
func (s *suite) send(url string, c call, status int, allowed bool) {
	s.Helper()
	request := func(body string) *http.Request {
		r, err := http.NewRequestWithContext(s.Context(), c.method, url+c.target, strings.NewReader(body))
		if err != nil {
			s.Fatal(err)
		}
		if c.kind != "" {
			r.Header.Set("Content-Type", c.kind)
		}
		r.Header.Set("Authorization", "Bearer key")
		for name, values := range c.header {
			r.Header[name] = values
		}
		return r
	}
	what := fmt.Sprintf("%s %s %.200s", c.method, c.target, c.body)
	if problem := s.check(request, c); (problem == nil) != allowed {
		s.Errorf("%s: it should be allowed: %v, found is %v", what, allowed, problem)
	}
	response, err := http.DefaultClient.Do(request(c.body))
	if err != nil {
		s.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.Fatal(err)
	}
	if response.StatusCode != status {
		s.Errorf("%s: %d %s, want %d", what, response.StatusCode, body, status)
	}
	answer := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: s.input(request(c.body)),
		Status:                 response.StatusCode,
		Header:                 response.Header,
		Options:                &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateResponse(s.Context(), answer.SetBodyBytes(body)); err != nil {
		s.Errorf("%s: %d %s is not as described: %v", what, status, body, err)
	}
	seen := fmt.Sprint(c.operation, " ", response.StatusCode)
	s.left = slices.DeleteFunc(s.left, func(answer string) bool { return answer == seen })
}

// check validates a request. The description has the schema of a line, so each line is validated alone.
func (s *suite) check(request func(body string) *http.Request, c call) error {
	bodies := []string{c.body}
	if c.kind == ndjsonType {
		bodies = strings.Split(c.body, "\n")
	}
	for _, body := range bodies {
		if err := openapi3filter.ValidateRequest(s.Context(), s.input(request(body))); err != nil {
			return err
		}
	}
	return nil
}

// input finds the operation of a request.
func (s *suite) input(r *http.Request) *openapi3filter.RequestValidationInput {
	s.Helper()
	route, parameters, err := s.router.FindRoute(r)
	if err != nil {
		s.Fatal(r.Method, r.URL, err)
	}
	return &openapi3filter.RequestValidationInput{
		Request: r, PathParams: parameters, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	}
}

// with returns a call with a header field.
func (c call) with(name, value string) call {
	c.header = http.Header{name: {value}}
	return c
}

// Every documented answer of every operation is given by a running server, and is as described.
func TestOpenAPI_EveryAnswerIsAsDescribed(t *testing.T) {
	unchanged := func(*server.Options) {}
	url := serve(t, nil, unchanged)
	s := newSuite(t, url)
	for _, c := range valid() {
		status := map[string]int{"forget": 204, "publish": 202, "publishMany": 202, "sendToUser": 202, "disconnectUser": 202, "disconnectToken": 202}[c.operation]
		s.send(url, c, max(status, 200), true)
		unknown := c
		unknown.target += "?unknown=1"
		s.send(url, unknown, 400, true)
		if c.operation != "describe" {
			s.send(url, c.with("Authorization", "Bearer another"), 401, true)
		}
	}
	s.variants(url)
	s.failures()
	if len(s.left) > 0 {
		t.Errorf("documented answers that were not seen: %s", strings.Join(s.left, ", "))
	}
}

// variants sends further requests to a server that works.
func (s *suite) variants(url string) {
	all := map[string]call{}
	for _, c := range valid() {
		all[c.operation] = c
	}
	again := func(operation, kind, body string, status int, allowed bool) {
		c := all[operation]
		c.kind, c.body = kind, body
		s.send(url, c, status, allowed)
	}
	for _, message := range []string{note, failed, progress, `{"action":"upload_completed","description":"","audit_score":0}`} {
		again("publish", jsonType, message, 202, true)
		again("publish", ndjsonType, message+"\n"+note, 202, true)
		again("publishMany", ndjsonType, `{"upload_id":"ü","message":`+message+`}`, 202, true)
	}
	again("sendToUser", ndjsonType, note+"\n"+note, 202, true)
	for _, message := range []string{
		`{}`, `[]`, `{"action":"ping"}`, `{"action":7}`, strings.Replace(progress, "42", "101", 1), `{"action":"x","offset":1}`,
		strings.Replace(progress, `"queued"`, `"Queued!"`, 1), `{"action":"upload_failed"}`, `{"action":"x","upload_id":""}`,
	} {
		again("publish", jsonType, message, 400, false)
		again("publish", ndjsonType, note+"\n"+message, 400, false)
		again("publishMany", ndjsonType, `{"upload_id":"a","message":`+message+`}`, 400, false)
	}
	large := strings.Replace(note, "{", `{"x":"`+strings.Repeat("x", 64<<10)+`",`, 1)
	again("publish", jsonType, large, 413, true)
	again("publishMany", ndjsonType, `{"upload_id":"a","message":`+large+`}`, 413, true)
	again("sendToUser", ndjsonType, note+"\n"+large, 413, true)
	for _, operation := range []string{"publish", "publishMany", "sendToUser"} {
		again(operation, "text/plain", note, 415, false)
		s.send(url, all[operation].with(lateBody, "yes"), 408, true)
	}
	for _, operation := range []string{"publish", "publishMany"} {
		c := all[operation].with("Idempotency-Key", "key-of-"+operation)
		s.send(url, c, 202, true)
		s.send(url, c, 202, true)
		c.body += " "
		s.send(url, c, 422, true)
		s.send(url, c.with("Idempotency-Key", "a b"), 400, false)
	}
	for target, status := range map[string]int{"?since=0": 200, "?since=1&epoch=x": 200, "?since=x": 400, "?since=-1": 400, "?epoch=x": 400} {
		c := all["history"]
		c.target += target
		s.send(url, c, status, status == 200 || target == "?epoch=x")
	}
	for query, status := range map[string]int{"?code=4001&reason=bye": 202, "?code=999": 400, "?code=1001": 400} {
		for _, operation := range []string{"disconnectUser", "disconnectToken"} {
			c := all[operation]
			c.target += query
			s.send(url, c, status, status == 202)
		}
	}
	unknown := all["newest"]
	unknown.target = "/v1/uploads/unknown"
	s.send(url, unknown, 404, true)
}

// failures sends requests to servers that do not work.
func (s *suite) failures() {
	unchanged := func(*server.Options) {}
	closed := serve(s.T, nil, func(o *server.Options) { o.APIKeys = nil })
	undecided := serve(s.T, nil, func(o *server.Options) {
		o.APIKeys, o.AuthorizeAPI = nil, func(*http.Request) error { return errors.New("the database is away") }
	})
	strange := newFailing(errors.New("something that nobody expected"))
	broken := serve(s.T, strange, unchanged)
	<-strange.connected
	away := newFailing(fmt.Errorf("%w: as a test wants it", broker.ErrUnavailable))
	unreachable := serve(s.T, away, unchanged)
	<-away.connected
	keyless := serve(s.T, plain{broker.NewMemory(broker.MemoryOptions{}).Node()}, unchanged)
	for _, c := range valid() {
		switch c.operation {
		case "describe":
			continue
		case "publish", "publishMany":
			s.send(keyless, c.with("Idempotency-Key", "key"), 501, true)
		}
		s.send(closed, c, 403, true)
		s.send(undecided, c, 503, true)
		if slices.Contains([]string{"publish", "publishMany", "history", "newest", "forget"}, c.operation) {
			s.send(broken, c, 500, true)
		}
		if c.operation != "stats" {
			s.send(unreachable, c, 503, true)
		}
	}
}

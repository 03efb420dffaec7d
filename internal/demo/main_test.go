package demo

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/manager"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a demo on a real listener, with a subscriber that sees all that is published to the upload "u".
type fixture struct {
	*testing.T
	demo    *Demo
	manager *manager.Manager
	url     string
	dir     string
	heard   chan message
}

// message has the fields of the three messages of an upload.
type message struct {
	Action  string `json:"action"`
	Payload struct {
		Status  string  `json:"status"`
		Stage   string  `json:"stage"`
		Percent float64 `json:"progress_percent"`
		Message string  `json:"message"`
	} `json:"payload"`
	Description  string  `json:"description"`
	AuditScore   float64 `json:"audit_score"`
	ErrorMessage string  `json:"error_message"`
}

// subscriber is a connection that passes on its messages.
type subscriber struct{ heard chan<- message }

func (s *subscriber) Send(f *manager.Frame) manager.Outcome {
	var m message
	if err := json.Unmarshal(f.Body(), &m); err != nil {
		panic(err)
	}
	s.heard <- m
	return manager.Queued
}

func (*subscriber) Close(manager.CloseReason) {}

func newFixture(t *testing.T, maxBytes int64) *fixture {
	t.Helper()
	m, err := manager.New(manager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{T: t, manager: m, dir: t.TempDir(), heard: make(chan message, 4096)}
	f.demo, err = New(Options{Manager: m, MaxBytes: maxBytes, Dir: f.dir})
	if err != nil {
		t.Fatal(err)
	}
	s := &subscriber{f.heard}
	if err := m.Connect("someone", s); err != nil {
		t.Fatal(err)
	}
	if err := m.SubscribeUpload(t.Context(), "someone", "u"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f.demo)
	f.url = server.URL
	t.Cleanup(func() {
		f.demo.Close()
		server.Close()
		m.Disconnect("someone", s)
		if err := m.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return f
}

// until returns the messages up to the first one with the action.
func (f *fixture) until(action string) []message {
	f.Helper()
	var all []message
	for {
		select {
		case m := <-f.heard:
			all = append(all, m)
			if m.Action == action {
				return all
			}
		case <-f.Context().Done():
			f.Fatalf("heard %d messages and no %s", len(all), action)
		}
	}
}

// silent fails if anything was published that the test has not read yet.
func (f *fixture) silent() {
	f.Helper()
	select {
	case m := <-f.heard:
		f.Errorf("published %+v, want nothing", m)
	default:
	}
}

func (f *fixture) post(path string, body io.Reader, headers ...string) *http.Response {
	f.Helper()
	return f.request(http.MethodPost, path, body, headers...)
}

func (f *fixture) get(path string) *http.Response {
	f.Helper()
	return f.request(http.MethodGet, path, http.NoBody)
}

// request returns the answer; headers are names and values in turn.
func (f *fixture) request(method, path string, body io.Reader, headers ...string) *http.Response {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), method, f.url+path, body)
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := f.do(req)
	if err != nil {
		f.Fatal(err)
	}
	return res
}

// do sends a request on a connection of its own, which ends with the test.
func (f *fixture) do(req *http.Request) (*http.Response, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err == nil {
		f.Cleanup(func() { _ = res.Body.Close() })
	}
	return res, err
}

// wantProblem checks that the answer is a problem with the status, and returns its text.
func (f *fixture) wantProblem(res *http.Response, status int) string {
	f.Helper()
	var problem struct {
		Status int
		Detail string
	}
	if err := json.NewDecoder(res.Body).Decode(&problem); err != nil {
		f.Fatal(err)
	}
	if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
		f.Errorf("the problem is %q", got)
	}
	if res.StatusCode != status || problem.Status != status || problem.Detail == "" {
		f.Errorf("answered %d with %+v, want a problem of status %d", res.StatusCode, problem, status)
	}
	return problem.Detail
}

func (f *fixture) found(uploadID string) result {
	f.Helper()
	res := f.get("/demo/uploads/" + uploadID)
	if res.StatusCode != http.StatusOK {
		f.Fatalf("answered %d for the result, want 200", res.StatusCode)
	}
	var found result
	if err := json.NewDecoder(res.Body).Decode(&found); err != nil {
		f.Fatal(err)
	}
	return found
}

func TestPage_IsSelfContained(t *testing.T) {
	f := newFixture(t, 5<<20)
	res := f.get("/")
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("answered %d, %v", res.StatusCode, err)
	}
	page := string(body)
	if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("the policy is %q", csp)
	}
	if !strings.Contains(page, `data-max-bytes="5242880"`) || !strings.Contains(page, "up to 5 MiB") {
		t.Error("the page does not say how large a file may be")
	}
	// Elements that the policy would block.
	for _, inline := range []string{`<style`, ` style=`, `<script>`, ` on[a-z]+=`, `https?://`} {
		if found := regexp.MustCompile(inline).FindString(page); found != "" {
			t.Errorf("the page contains %q", found)
		}
	}
	for _, link := range regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if res := f.get(link[1]); res.StatusCode != http.StatusOK {
			t.Errorf("%s is answered with %d", link[1], res.StatusCode)
		}
	}
}

func TestAssets(t *testing.T) {
	f := newFixture(t, 0)
	entries, err := files.ReadDir("page/assets")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		res := f.get("/demo/" + entry.Name())
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") == "" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s is answered with %d and %v", entry.Name(), res.StatusCode, res.Header)
		}
	}
	for _, path := range []string{"/demo/none.js", "/demo/index.html", "/demo/..%2Findex.html", "/demo/", "/other"} {
		if res := f.get(path); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s is answered with %d, want 404", path, res.StatusCode)
		}
	}
}

func TestResult_UnknownUpload(t *testing.T) {
	f := newFixture(t, 0)
	for _, path := range []string{"/demo/uploads/other", "/demo/uploads/other/thumbnail"} {
		if res := f.get(path); res.StatusCode != http.StatusNoContent {
			t.Errorf("%s is answered with %d, want 204", path, res.StatusCode)
		}
	}
}

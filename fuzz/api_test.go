package fuzz_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzAPI sends an arbitrary request with a valid key to the HTTP API. Each answer but 204 is JSON of the documented
// type, no answer is a server error, a refused request publishes nothing, and one that is repeated with its idempotency
// key publishes nothing again and gets the same answer.
func FuzzAPI(f *testing.F) {
	progress := `{"action":"upload_completed","upload_id":"u","description":"d","audit_score":1}`
	for _, seed := range [][5]string{
		{"POST", "/v1/uploads/u/messages", "application/json", "", progress},
		{"POST", "/v1/uploads/u/messages", "application/json", "once", progress},
		{"POST", "/v1/uploads/u/messages", "application/x-ndjson", "lines", progress + "\n\r\n" + progress},
		{"POST", "/v1/uploads/u/messages", "application/json; charset=utf-16", "\t", progress},
		{"POST", "/v1/uploads/u/messages", "application/json", strings.Repeat("k", 256), "\ufeff" + progress},
		{"POST", "/v1/messages", "application/x-ndjson", "many",
			`{"upload_id":"a","message":{"action":"note"}}` + "\n" + `{"upload_ids":["a","b"],"message":{"action":"note"}}`},
		{"POST", "/v1/messages", "application/x-ndjson", "", `{"upload_id":"a","upload_ids":[],"message":{}}`},
		{"GET", "/v1/uploads/u", "", "", ""},
		{"GET", "/v1/uploads/u/messages?since=0&since=1&epoch=x", "", "", ""},
		{"GET", "/v1/uploads/%2e%2e/subscribers", "", "", ""},
		{"DELETE", "/v1/uploads/u", "", "", ""},
		{"POST", "/v1/users/ann/messages", "application/json", "user", `{"action":"note"}`},
		{"DELETE", "/v1/users/ann/connections?code=1012&reason=x", "", "", ""},
		{"DELETE", "/v1/tokens/t/connections?code=1", "", "", ""},
		{"GET", "/v1/stats", "", "", ""}, {"GET", "/v1/nodes", "", "", ""}, {"PUT", "/v1/", "", "", ""},
		{"GET", "/v1/..", "", "", ""}, {"GET", "/v1/uploads/../../ws/uploads", "", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	}
	s := start(f)
	f.Fuzz(func(t *testing.T, method, path, contentType, key, body string) {
		ask := func() *httptest.ResponseRecorder {
			request, err := http.NewRequest(method, "http://s", strings.NewReader(body))
			if err != nil || !strings.HasPrefix(path, "/v1/") {
				return nil
			}
			// The request line is parsed as a server would, without the checks of a client.
			if request.URL, err = url.ParseRequestURI(path); err != nil {
				return nil
			}
			request.Header.Set("Authorization", "Bearer "+apiKey)
			request.Header.Set("Content-Type", contentType)
			if key != "" {
				request.Header.Set("Idempotency-Key", key)
			}
			response := httptest.NewRecorder()
			s.server.Handler().ServeHTTP(response, request)
			return response
		}
		before := s.manager.Stats().Published
		response := ask()
		if response == nil {
			return
		}
		if response.Code >= 500 {
			t.Fatalf("%s %q: %d %s", method, path, response.Code, response.Body)
		}
		if response.Code != http.StatusNoContent && method != http.MethodHead && !json.Valid(response.Body.Bytes()) {
			t.Fatalf("%s %q: %d with a body that is no JSON: %q", method, path, response.Code, response.Body)
		}
		if response.Code >= 400 && s.manager.Stats().Published != before {
			t.Fatalf("%s %q: refused with %d, but published", method, path, response.Code)
		}
		published := s.manager.Stats().Published
		if key != "" && published > before && response.Code < 300 {
			again := ask()
			if s.manager.Stats().Published != published || again.Body.String() != response.Body.String() ||
				again.Header().Get("Idempotency-Replayed") != "true" {
				t.Fatalf("%s %q with key %q again: %d %s, published %d", method, path, key, again.Code, again.Body,
					s.manager.Stats().Published-published)
			}
		}
	})
}

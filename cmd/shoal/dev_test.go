package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/server/jwtauth"
)

func TestDevWelcomeCanBeFollowed(t *testing.T) {
	s := serveDev(t)
	if s.out[1] != "demo page: "+s.url+"/" {
		t.Errorf("second line is %q", s.out[1])
	}
	if status, body := call(t, "GET", s.url+"/", "", ""); status != 200 || !strings.Contains(body, "<html") {
		t.Errorf("the demo page answers %d:\n%s", status, body)
	}
	// The line is taken apart as a shell would do it.
	parts := strings.Split(s.out[3], "'")
	const curl = `curl -H "Authorization: Bearer dev" -H "Content-Type: application/json" -d `
	if len(parts) != 3 || parts[0] != curl {
		t.Fatalf("fourth line is %q", s.out[3])
	}
	if status, body := call(t, "POST", strings.TrimSpace(parts[2]), "dev", parts[1]); status != 202 {
		t.Errorf("what curl sends is answered with %d: %s", status, body)
	}
}

func TestDevTokenIsAccepted(t *testing.T) {
	s := serveDev(t)
	status, body := call(t, "GET", s.url+"/dev/token?user=b%C3%B6b", "", "")
	var answer struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 {
		t.Fatalf("status = %d, body %s", status, body)
	}
	keys, err := jwtauth.New(jwtauth.Options{Secret: []byte("dev")})
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	id, err := keys.Authenticate(t.Context(), answer.Token)
	if err != nil || id.UserID != "böb" || !id.Expires.Equal(answer.ExpiresAt) {
		t.Errorf("identity = %+v, err = %v, answer %s", id, err, body)
	}
	if got := connect(t, s.url).authenticate(answer.Token); got != "böb" {
		t.Errorf("the server takes the client for %v", got)
	}
}

// A reload that changes the secret also changes the one that signs tokens.
func TestDevToken_IsAcceptedAfterAReload(t *testing.T) {
	settings := maps.Clone(reloadBefore)
	settings["dev"], settings["jwt-audience"], settings["jwt-issuer"] = "true", "[shoal, other]", "me"
	r := startReloading(t, settings)
	handler := r.handler()
	wantAccepted := func(when string) {
		t.Helper()
		request := httptest.NewRequest(http.MethodGet, "http://localhost/dev/token?user=bob", http.NoBody)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		var body struct{ Token string }
		if err := json.Unmarshal(answer.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		if id, err := r.jwt.Authenticate(t.Context(), body.Token); err != nil || id.UserID != "bob" {
			t.Errorf("%s: identity = %+v, err = %v", when, id, err)
		}
	}
	wantAccepted("at the start")
	if log := r.reloadWith(settings, reloadAfter); !strings.Contains(log, "msg=reloaded") {
		t.Fatal(log)
	}
	wantAccepted("after a reload")
	r.reloadWith(settings, map[string]string{"max-connections": "many"})
	wantAccepted("after a reload that failed")
}

func TestDevTokenRefuses(t *testing.T) {
	s := serveDev(t)
	for _, query := range []string{"", "?user=", "?user=a%00b", "?user=" + strings.Repeat("a", 256), "?user=%ff"} {
		status, body := call(t, "GET", s.url+"/dev/token"+query, "", "")
		if status != 400 || !strings.Contains(body, `"detail":"the parameter user`) {
			t.Errorf("%q: %d %s", query, status, body)
		}
	}
	if status, _ := call(t, "POST", s.url+"/dev/token?user=bob", "", ""); status != 405 {
		t.Errorf("POST is answered with %d, want 405", status)
	}
}

func TestNoDevTokenOutsideDevelopment(t *testing.T) {
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open")
	for _, path := range []string{"/dev/token?user=bob", "/"} {
		if status, _ := call(t, "GET", s.url+path, "", ""); status != 404 {
			t.Errorf("%s answers %d, want 404", path, status)
		}
	}
	if status, _ := call(t, "GET", s.url+"/v1/stats", "dev", ""); status != 403 {
		t.Errorf("/v1 without a configured key answers %d, want 403", status)
	}
}

func TestDevKeepsExplicitKeysToItself(t *testing.T) {
	s := serveDev(t, "--api-key=explicit", "--jwt-secret=explicit-too")
	text := strings.Join(s.out, "\n")
	if strings.Contains(text, "explicit") || !strings.Contains(text, "Bearer $SHOAL_API_KEY") {
		t.Errorf("the welcome is\n%s", text)
	}
	if status, _ := call(t, "GET", s.url+"/v1/stats", "explicit", ""); status != 200 {
		t.Errorf("the explicit key is answered with %d", status)
	}
	if status, _ := call(t, "GET", s.url+"/v1/stats", "dev", ""); status != 401 {
		t.Errorf("the key of development is answered with %d, want 401", status)
	}
}

// A foreign page whose host name resolves to this machine must not reach the endpoints of development.
func TestDevAnswersToLocalNamesOnly(t *testing.T) {
	served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	h := newDevHandler(nil, served, served)
	for host, status := range map[string]int{
		"127.0.0.1:8080": 418, "localhost": 418, "LOCALHOST:1": 418, "[::1]:8080": 418, "[::1]": 418, "127.9.9.9": 418,
		"rebound.example.com:8080": 403, "10.0.0.1": 403, "localhost.example.com": 403, "": 403,
	} {
		r := httptest.NewRequest(http.MethodGet, "/v1/stats", http.NoBody)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("Host %q is answered with %d, want %d", host, w.Code, status)
		}
	}
}

// do makes a request and returns the status of its answer.
func do(t *testing.T, r *http.Request) int {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// Without a key, users are shown to browsers of this machine only, unless --dashboard says otherwise.
func TestDashboard_ReadersWithoutAKey(t *testing.T) {
	type request struct {
		host, header string
		status       int
	}
	for mode, requests := range map[string][]request{
		"auto": {
			{"127.0.0.1:9090", "", http.StatusOK},
			{"localhost", "", http.StatusOK},
			{"[::1]:9090", "", http.StatusOK},
			{"evil.example", "", http.StatusForbidden},
			{"localhost", "X-Forwarded-For", http.StatusForbidden},
			{"localhost", "Via", http.StatusForbidden},
		},
		"open": {{"evil.example", "X-Forwarded-For", http.StatusOK}},
		"key":  {{"127.0.0.1", "", http.StatusForbidden}},
		"off":  {{"127.0.0.1", "", http.StatusNotFound}},
	} {
		t.Run(mode, func(t *testing.T) {
			s := serveDev(t, "--dashboard="+mode)
			for _, c := range requests {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.admin+"/dashboard/data/user?id=ann", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				r.Host = c.host
				if c.header != "" {
					r.Header.Set(c.header, "198.51.100.7")
				}
				if status := do(t, r); status != c.status {
					t.Errorf("%+v is answered with %d", c, status)
				}
			}
		})
	}
}

// The dashboard is on the admin listener alone, and its API has no path prefix, which is for the public listeners.
func TestDashboard_IsOnTheAdminListener(t *testing.T) {
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--api-key=k", "--path-prefix=/api/v1")
	if status, page := call(t, http.MethodGet, s.admin+"/dashboard/", "", ""); status != http.StatusOK ||
		!strings.Contains(page, "Shoal dashboard") {
		t.Errorf("the page is answered with %d", status)
	}
	host := strings.TrimSuffix(s.url, "/api/v1")
	for _, path := range []string{"/dashboard/", "/api/v1/dashboard/"} {
		if _, page := call(t, http.MethodGet, host+path, "", ""); strings.Contains(page, "Shoal dashboard") {
			t.Errorf("the public listener has the dashboard at %s", path)
		}
	}
	const path = "/dashboard/data/upload?id=a/b"
	for key, want := range map[string]int{"wrong": http.StatusUnauthorized, "k": http.StatusAccepted} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.admin+path, strings.NewReader(`{"action":"note"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+key)
		if status := do(t, r); status != want {
			t.Errorf("publishing with the key %q is answered with %d, want %d", key, status, want)
		}
	}
	if status, body := call(t, http.MethodGet, s.admin+"/dashboard/data/upload?id=a/b", "", ""); status != http.StatusOK ||
		!strings.Contains(body, `"stored":1`) {
		t.Errorf("the upload is answered with %d %s", status, body)
	}
	_, metrics := call(t, http.MethodGet, s.admin+"/metrics", "", "")
	const measured = `shoal_http_request_seconds_count{code="202",method="post",route="/v1/uploads/{id}/messages"} 1`
	if !strings.Contains(metrics, measured) {
		t.Error("a request through the dashboard is not measured")
	}
}

// An empty id is refused, rather than redirected to the path of an upload named "messages".
func TestServe_RefusesEmptyIDs(t *testing.T) {
	s := serveDev(t)
	for _, path := range []string{"/v1/uploads//messages", "/v1/uploads/"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, s.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer dev")
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if code := response.StatusCode; code != http.StatusBadRequest && code != http.StatusMethodNotAllowed {
			t.Errorf("DELETE %s is answered with %d and the location %q", path, code, response.Header.Get("Location"))
		}
	}
}

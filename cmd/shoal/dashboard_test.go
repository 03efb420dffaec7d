package main

import (
	"net/http"
	"strings"
	"testing"
)

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
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--api-key=k", "--path-prefix=/shoal")
	if status, page := call(t, http.MethodGet, s.admin+"/dashboard/", "", ""); status != http.StatusOK ||
		!strings.Contains(page, "Shoal dashboard") {
		t.Errorf("the page is answered with %d", status)
	}
	host := strings.TrimSuffix(s.url, "/shoal")
	for _, path := range []string{"/dashboard/", "/shoal/dashboard/"} {
		if _, page := call(t, http.MethodGet, host+path, "", ""); strings.Contains(page, "Shoal dashboard") {
			t.Errorf("the public listener has the dashboard at %s", path)
		}
	}
	const path = "/dashboard/v1/uploads/a%2Fb/messages"
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

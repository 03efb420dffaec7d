package server_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// status returns the status and the body of an answer to a request with an API key.
func status(t *testing.T, h http.Handler, method, target string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, target, strings.NewReader(`{"action":"note"}`))
	r.Header.Set("Authorization", "Bearer key")
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// opens reports whether a WebSocket opens at a path.
func opens(t *testing.T, web *httptest.Server, path string) bool {
	t.Helper()
	conn, response, err := websocket.Dial(t.Context(), web.URL+path, nil)
	if err != nil {
		if response == nil || response.StatusCode == http.StatusSwitchingProtocols {
			t.Fatal(err)
		}
		return false
	}
	_ = conn.CloseNow()
	return true
}

// Behind a prefix every public path begins with it, and ids keep their escapes.
func TestServer_PathPrefix(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.PathPrefix = "/a-b/c.d" })
	for target, want := range map[string]int{
		"/a-b/c.d/v1/stats":                      200,
		"/a-b/c.d/v1/uploads/x%2Fy/messages":     200,
		"/a-b/c.d/v1/uploads//messages":          400,
		"/a-b/c.d/v1/nothing":                    404,
		"/v1/stats":                              404,
		"/a-b/c.d":                               404,
		"/a-b/c.d/":                              404,
		"/a-b/c.dx/v1/stats":                     404,
		"/a-b/c.d/a-b/c.d/v1/stats":              404,
		"/a-b/c.d//v1/stats":                     404,
		"/A-B/c.d/v1/stats":                      404,
		"/ws/uploads":                            404,
		"/a-b/c.d/ws/uploads":                    426,
		"/a-b/c.d/ws/uploads/":                   404,
		"/a-b/c.d/v1/uploads/a-b%2Fc.d/messages": 200,
	} {
		if got, body := status(t, n.server.Handler(), "GET", target); got != want && (want != 426 || got < 400 || got == 404) {
			t.Errorf("%s: %d %s, want %d", target, got, body, want)
		}
	}
	if got, body := status(t, n.server.Handler(), "POST", "/a-b/c.d/v1/uploads/x%2Fy/messages"); got != 202 {
		t.Errorf("publishing: %d %s", got, body)
	}
	if _, at, err := n.manager.Newest(t.Context(), "x/y"); at.Offset != 1 || err != nil {
		t.Errorf("x/y is at %+v, %v", at, err)
	}
	web := httptest.NewServer(n.server.Handler())
	defer web.Close()
	if !opens(t, web, "/a-b/c.d/ws/uploads") || opens(t, web, "/ws/uploads") {
		t.Error("the WebSocket is not behind the prefix")
	}
}

// The WebSocket and the API are handlers of their own, and the WebSocket's path is an option.
func TestServer_HandlersApart(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.PathPrefix, o.WebSocketPath = "/shoal", "/live" })
	mux := http.NewServeMux()
	mux.Handle("/my/own/path", n.server.WebSocketHandler())
	mux.Handle("/shoal/v1/", n.server.APIHandler())
	web := httptest.NewServer(mux)
	defer web.Close()
	if !opens(t, web, "/my/own/path") || opens(t, web, "/shoal/live") {
		t.Error("the WebSocket is not where its handler is mounted, and only there")
	}
	both := httptest.NewServer(n.server.Handler())
	defer both.Close()
	if !opens(t, both, "/shoal/live") || opens(t, both, "/shoal/ws/uploads") {
		t.Error("the WebSocket is not at its path")
	}
	if got, body := status(t, mux, "POST", "/shoal/v1/uploads/x/messages"); got != 202 {
		t.Errorf("publishing: %d %s", got, body)
	}
	for _, target := range []string{"/shoal/live", "/shoal/", "/v1/stats"} {
		if got, body := status(t, n.server.APIHandler(), "GET", target); got != 404 {
			t.Errorf("API at %s: %d %s", target, got, body)
		}
	}
	if got, body := status(t, n.server.WebSocketHandler(), "POST", "/"); got != 405 {
		t.Errorf("POST to the WebSocket: %d %s", got, body)
	}
}

// A mux in front of the handlers keeps the path values of its own pattern, whose names may be those of the API.
func TestServer_KeepsPathValues(t *testing.T) {
	n := start(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/{area}/{upload_id}/{rest...}", func(w http.ResponseWriter, r *http.Request) {
		want := r.PathValue("upload_id")
		n.server.Handler().ServeHTTP(w, r)
		if got := r.PathValue("upload_id"); got != want {
			t.Errorf("%s: upload_id of the mux is %q, was %q", r.URL.Path, got, want)
		}
	})
	for target, want := range map[string]int{
		"/v1/uploads/x": 404, "/v1/uploads/x/subscribers": 200, "/events/uploads/x": 400, // it has a body
	} {
		if got, body := status(t, mux, "GET", target); got != want {
			t.Errorf("%s: %d %s", target, got, body)
		}
	}
}

// A zero Server answers with an error on each of its handlers.
func TestServer_ZeroHandlersSaySo(t *testing.T) {
	var s server.Server
	for _, h := range []http.Handler{s.Handler(), s.WebSocketHandler(), s.APIHandler()} {
		if got, body := status(t, h, "GET", "/v1/stats"); got != 500 || !strings.Contains(body, "server.New") {
			t.Errorf("%d %s", got, body)
		}
	}
}

func TestServer_RefusesBadPaths(t *testing.T) {
	for _, path := range []string{
		"x", "/", "/x/", "//x", "/x//y", "/x y", "/%78", "/ü", "/x?y", "/x#y", "/.", "/x/..", "/{id}", "/x*", "\n", "/x\x00", "/a;b",
	} {
		if err := server.CheckPath(path); err == nil {
			t.Errorf("%q is accepted", path)
		}
		_, err := server.New(server.Options{PathPrefix: path, WebSocketPath: path})
		if err == nil || !strings.Contains(err.Error(), "Options.PathPrefix is ") ||
			!strings.Contains(err.Error(), "Options.WebSocketPath is ") {
			t.Errorf("%q: %v", path, err)
		}
	}
	for _, path := range []string{"/x", "/x/y", "/X-y_z~1.2/v1", "/..."} {
		if err := server.CheckPath(path); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	for path, taken := range map[string]bool{
		"/v1": true, "/v1/ws": true, "/events/uploads": true, "/events/uploads/ws": true, "/events": false, "/v11": false,
	} {
		_, err := server.New(server.Options{WebSocketPath: path})
		if strings.Contains(err.Error(), "WebSocketPath") != taken { // other options are missing
			t.Errorf("%q: %v", path, err)
		}
	}
}

// AuthorizeAPI decides in place of keys: once per request, and a failure is not a refusal.
func TestServer_AuthorizeAPI(t *testing.T) {
	var log bytes.Buffer
	calls := 0
	hook := func(r *http.Request) error {
		calls++
		if _, bounded := r.Context().Deadline(); !bounded {
			t.Error("the hook's context has no end")
		}
		switch r.Header.Get("X-Team") {
		case "blue":
			return nil
		case "red":
			return server.ErrForbidden
		case "":
			return &server.TokenError{Message: "say which team"}
		}
		return errors.New("the database of teams is away")
	}
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.APIKeys, o.AuthorizeAPI, o.Logger = nil, hook, slog.New(slog.NewTextHandler(&log, nil))
	})
	for team, want := range map[string]struct {
		status int
		header string
	}{
		"blue":  {202, ""},
		"red":   {403, ""},
		"":      {401, "WWW-Authenticate"},
		"green": {503, "Retry-After"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/v1/uploads/x/messages", strings.NewReader(`{"action":"note"}`))
		r.Header.Set("X-Team", team)
		calls = 0
		n.server.Handler().ServeHTTP(w, r)
		if w.Code != want.status || calls != 1 || want.header != "" && w.Header().Get(want.header) == "" {
			t.Errorf("%q: %d %s after %d calls", team, w.Code, w.Body, calls)
		}
		if strings.Contains(w.Body.String(), "database") {
			t.Errorf("the answer tells the cause: %s", w.Body)
		}
	}
	if !strings.Contains(log.String(), "AuthorizeAPI failed") || !strings.Contains(log.String(), "the database of teams is away") {
		t.Errorf("logged is %s", log.String())
	}
	if _, at, _ := n.manager.Newest(context.Background(), "x"); at.Offset != 1 {
		t.Errorf("%d messages are published", at.Offset)
	}
	if _, err := server.New(server.Options{AuthorizeAPI: hook, APIKeys: []string{"k"}}); err == nil ||
		!strings.Contains(err.Error(), "exclude each other") {
		t.Errorf("keys and a hook: %v", err)
	}
}

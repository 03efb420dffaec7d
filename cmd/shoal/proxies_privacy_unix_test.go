//go:build unix

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A proxy removes the client's Forwarded header: the server would compare it with the X-Forwarded-For that the proxy adds,
// and believe neither.
func TestDeploy_ProxiesRemoveForwarded(t *testing.T) {
	for name, kind := range proxyKinds {
		t.Run(name, func(t *testing.T) {
			got := make(chan http.Header, 1)
			node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Test") != "" {
					got <- r.Header
				}
				w.WriteHeader(http.StatusUnauthorized)
			}))
			defer node.Close()
			p := startProxy(t, kind, node.URL)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/v1/stats", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("X-Test", "1")
			request.Header.Set("Forwarded", "for=198.51.100.1")
			response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if header := <-got; len(header["Forwarded"]) > 0 || header.Get("X-Forwarded-For") != "127.0.0.1" {
				t.Errorf("the node got Forwarded %q and X-Forwarded-For %q", header["Forwarded"], header["X-Forwarded-For"])
			}
		})
	}
}

// The access log of nginx has no tokens.
func TestDeploy_NginxLogsNoTokens(t *testing.T) {
	s := serveDev(t)
	p := startProxy(t, proxyKinds["nginx"], s.url)
	token := shoal(t, nil, "", "token", "alice", "--dev")
	token.wantDone(t)
	events := streamEvents(t, p.url+"/events/uploads/film?access_token="+strings.TrimSpace(token.out), "", "")
	events.receive("subscribed")
	_ = events.response.Body.Close()
	var log string
	for deadline := time.After(patience); !strings.Contains(log, "/events/uploads/film"); {
		text, err := os.ReadFile(filepath.Join(p.folder, "access.log"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		log = string(text)
		select {
		case <-deadline:
			t.Fatalf("the request is not logged: %s", log)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if strings.Contains(log, "access_token") || strings.Contains(log, strings.TrimSpace(token.out)) {
		t.Errorf("the token is logged: %s", log)
	}
}

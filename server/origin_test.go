package server

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Origins are compared as scheme, host and port, with default ports filled in, however they are written.
func TestOrigin_Comparison(t *testing.T) {
	for _, c := range []struct {
		allowed, host, origin string
		tls, want             bool
	}{
		{"https://app.example", "x", "https://app.example", false, true},
		{"https://app.example:443", "x", "https://app.example", false, true},
		{"https://app.example", "x", "https://app.example:443", false, true},
		{"HTTPS://App.Example", "x", "https://app.example", false, true},
		{"https://app.example", "x", "http://app.example", false, false},
		{"https://app.example", "x", "https://app.example:8443", false, false},
		{"https://app.example", "app.other", "https://app.other", false, false},
		{"http://[::1]:8080", "x", "http://[0:0::1]:8080", false, true},
		{"capacitor://localhost", "x", "capacitor://localhost", false, true},
		{"", "app.example:443", "https://app.example", false, true},
		{"", "app.example:80", "http://app.example", false, true},
		{"", "app.example", "https://app.example:443", false, true},
		{"", "APP.example:8080", "http://app.example:8080", false, true},
		{"", "app.example", "http://app.example", false, true},
		{"", "app.example", "http://app.example", true, false},
		{"", "app.example", "https://app.example", true, true},
		{"", "[::1]:8080", "http://[::1]:8080", false, true},
		{"", "app.example", "https://app.example:8443", false, false},
		{"", "app.example:80", "https://app.example", false, false},
		{"", "app.example", "https://evil.example", false, false},
		{"", "app.example", "null", false, false},
		{"", "app.example", "", false, false},
		{"", "app.example", "https://app.example/path", false, false},
		{"", "app.example", "https://user@app.example", false, false},
	} {
		s := &Server{opt: Options{}.withDefaults()}
		if c.allowed != "" {
			s.opt.AllowedOrigins = []string{c.allowed}
		}
		if err := s.opt.settings().validate(); err != nil {
			t.Errorf("%s: %v", c.allowed, err)
		}
		s.settings.Store(s.opt.settings().prepared())
		r := httptest.NewRequest("GET", "/ws/uploads", nil)
		r.Host = c.host
		r.Header.Set("Origin", c.origin)
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		if got := s.originAllowed(r); got != c.want {
			t.Errorf("allowed %q, Host %q, Origin %q, TLS %v: got %v, want %v", c.allowed, c.host, c.origin, c.tls, got, c.want)
		}
	}
}

// A pattern that no browser can match is refused when the server is configured.
func TestOptions_OriginThatNeverMatchesIsRefused(t *testing.T) {
	for _, s := range []string{
		"", "*", "app.example", "https://", "https://*.example.com", "https://app.example/", "https://app.example/x",
		"https://app.example?x", "https://user@app.example", "https://app.example:", "https://app.example:0",
		"https://app.example:0443", "https://app.example:99999", "https://äpp.example", "https://app example", "null",
		"https://127.1", "https://[fe80::1%25eth0]", " https://app.example", "https://a.example,https://b.example",
	} {
		err := Options{AllowedOrigins: []string{s}}.withDefaults().validate()
		if err == nil || !strings.Contains(err.Error(), "AllowedOrigins") {
			t.Errorf("%q is accepted", s)
		}
	}
}

// A refused origin is logged at info with both values, at most once per second, with the number of the others.
func TestServer_RefusedOriginIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &Server{opt: Options{Logger: slog.New(slog.NewTextHandler(&out, nil))}}
		s.settings.Store(s.opt.settings().prepared())
		r := httptest.NewRequest("GET", "/ws/uploads", nil)
		r.Host = "127.0.0.1"
		r.Header.Set("Origin", "http://127.0.0.1:8560")
		for range 3 {
			s.originAllowed(r)
		}
		<-time.After(time.Second)
		s.originAllowed(r)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "origin=http://127.0.0.1:8560 host=127.0.0.1 ") ||
			!strings.Contains(lines[1], "suppressed=2") || !strings.Contains(lines[0], "level=INFO") {
			t.Errorf("logged %q", lines)
		}
	})
}

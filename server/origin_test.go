package server

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net/http/httptest"
	"net/netip"
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
		if err := s.opt.settings().validate(s.opt.PingInterval); err != nil {
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

// The client is the last address that a trusted proxy has appended; nothing that a client sends changes it.
func TestPeer_IsTheLastUntrustedHop(t *testing.T) {
	const proxy = "10.0.0.1:4711"
	for name, c := range map[string]struct {
		remote, xff, forwarded string
		want                   string
	}{
		"no proxy":                    {"192.0.2.1:1", "198.51.100.7", "", "192.0.2.1"},
		"one hop":                     {proxy, "198.51.100.7", "", "198.51.100.7"},
		"made up by the client":       {proxy, "1.1.1.1, 198.51.100.7", "", "198.51.100.7"},
		"several proxies":             {proxy, "1.1.1.1, 198.51.100.7, 10.9.9.9,10.8.8.8", "", "198.51.100.7"},
		"only proxies":                {proxy, "10.9.9.9", "", "10.9.9.9"},
		"no header":                   {proxy, "", "", "10.0.0.1"},
		"garbage":                     {proxy, "what", "", "10.0.0.1"},
		"garbage before":              {proxy, "what, 198.51.100.7", "", "198.51.100.7"},
		"garbage at the end":          {proxy, "198.51.100.7, ", "", "10.0.0.1"},
		"with a port":                 {proxy, "198.51.100.7:8080", "", "198.51.100.7"},
		"IPv6":                        {proxy, "2001:db8::7", "", "2001:db8::7"},
		"IPv6 with a port":            {proxy, "[2001:db8::7]:443", "", "2001:db8::7"},
		"mapped":                      {proxy, "::ffff:198.51.100.7", "", "198.51.100.7"},
		"range of mapped proxies":     {"203.0.113.9:1", "198.51.100.7", "", "198.51.100.7"},
		"mapped proxy":                {"[::ffff:10.0.0.1]:1", "198.51.100.7", "", "198.51.100.7"},
		"Forwarded":                   {proxy, "", `for=198.51.100.7;proto=https;by=10.0.0.1`, "198.51.100.7"},
		"Forwarded IPv6":              {proxy, "", `proto=https; For="[2001:db8::7]:4711"`, "2001:db8::7"},
		"Forwarded list":              {proxy, "", `for=1.1.1.1, for=198.51.100.7, for=10.2.2.2`, "198.51.100.7"},
		"Forwarded unknown":           {proxy, "", `for=1.1.1.1, for=unknown`, "10.0.0.1"},
		"Forwarded obfuscated":        {proxy, "", `for=_hidden`, "10.0.0.1"},
		"Forwarded, comma in quotes":  {proxy, "", `for=198.51.100.7;host="a,for=9.9.9.9"`, "198.51.100.7"},
		"Forwarded, semicolon there":  {proxy, "", `for=198.51.100.7;host="a;for=9.9.9.9"`, "198.51.100.7"},
		"Forwarded, escaped quote":    {proxy, "", `for=198.51.100.7;host="\\\",for=9.9.9.9"`, "198.51.100.7"},
		"Forwarded, open quote":       {proxy, "", `for="1.1.1.1, for=198.51.100.7`, "198.51.100.7"},
		"Forwarded, two for":          {proxy, "", `for=198.51.100.7;for=9.9.9.9`, "10.0.0.1"},
		"both agree":                  {proxy, "198.51.100.7", "for=198.51.100.7", "198.51.100.7"},
		"both disagree":               {proxy, "198.51.100.7", "for=1.1.1.1", "10.0.0.1"},
		"single trusted IPv6":         {"[2001:db8::1]:9", "198.51.100.7", "", "198.51.100.7"},
		"neighbour of a trusted one":  {"[2001:db8::2]:9", "198.51.100.7", "", "2001:db8::2"},
		"Unix socket":                 {"@", "198.51.100.7", "", "198.51.100.7"},
		"Unix socket without headers": {"", "", "", "invalid IP"},
	} {
		s := &Server{opt: Options{TrustedProxies: []string{"10.0.0.0/8", "2001:db8::1", "unix", "::ffff:203.0.113.0/120"}}.withDefaults()}
		s.settings.Store(s.opt.settings().prepared())
		r := httptest.NewRequest("GET", "/ws/uploads", nil)
		r.RemoteAddr = c.remote
		if c.xff != "" {
			r.Header.Set("X-Forwarded-For", c.xff)
		}
		if c.forwarded != "" {
			r.Header.Set("Forwarded", c.forwarded)
		}
		if got := s.peer(r).String(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestPeer_UnixSocketsAreTrustedOnlyIfNamed(t *testing.T) {
	s := &Server{}
	s.settings.Store(Settings{TrustedProxies: []string{"0.0.0.0/0", "::/0"}}.prepared())
	r := httptest.NewRequest("GET", "/ws/uploads", nil)
	r.RemoteAddr = "@"
	r.Header.Set("X-Forwarded-For", "198.51.100.7")
	if got := s.peer(r); got.IsValid() {
		t.Errorf("a peer on a Unix socket is taken for %s", got)
	}
}

func TestCheckTrustedProxy_NamesTheRemedy(t *testing.T) {
	for entry, good := range map[string]bool{
		"::ffff:10.0.0.0/104": true, "::ffff:10.0.0.1/104": false, "::ffff:10.0.0.0/129": false, "10.0.0.0/8": true, "192.0.2.1": true, "2001:db8::/32": true, "::1": true, "unix": true,
		"10.0.0.1/8": false, "10.0.0.0/33": false, "": false, "proxy.example": false, "fe80::1%eth0": false, "*": false,
	} {
		if err := CheckTrustedProxy(entry); (err == nil) != good {
			t.Errorf("%q: %v", entry, err)
		}
	}
}

// IPv6 addresses of one subscriber are limited together.
func TestBucket_IsASubscriber(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "::1": "::",
	} {
		if got := bucket(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("%s belongs to %s, want %s", addr, got, want)
		}
	}
}

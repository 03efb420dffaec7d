package server

import (
	"net/http/httptest"
	"net/netip"
	"testing"
)

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
		"mapped proxy":                {"[::ffff:10.0.0.1]:1", "198.51.100.7", "", "198.51.100.7"},
		"Forwarded":                   {proxy, "", `for=198.51.100.7;proto=https;by=10.0.0.1`, "198.51.100.7"},
		"Forwarded IPv6":              {proxy, "", `proto=https; For="[2001:db8::7]:4711"`, "2001:db8::7"},
		"Forwarded list":              {proxy, "", `for=1.1.1.1, for=198.51.100.7, for=10.2.2.2`, "198.51.100.7"},
		"Forwarded unknown":           {proxy, "", `for=1.1.1.1, for=unknown`, "10.0.0.1"},
		"Forwarded obfuscated":        {proxy, "", `for=_hidden`, "10.0.0.1"},
		"both agree":                  {proxy, "198.51.100.7", "for=198.51.100.7", "198.51.100.7"},
		"both disagree":               {proxy, "198.51.100.7", "for=1.1.1.1", "10.0.0.1"},
		"single trusted IPv6":         {"[2001:db8::1]:9", "198.51.100.7", "", "198.51.100.7"},
		"neighbour of a trusted one":  {"[2001:db8::2]:9", "198.51.100.7", "", "2001:db8::2"},
		"Unix socket":                 {"@", "198.51.100.7", "", "198.51.100.7"},
		"Unix socket without headers": {"", "", "", "invalid IP"},
	} {
		s := &Server{opt: Options{TrustedProxies: []string{"10.0.0.0/8", "2001:db8::1", "unix"}}.withDefaults()}
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
		"10.0.0.0/8": true, "192.0.2.1": true, "2001:db8::/32": true, "::1": true, "unix": true,
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

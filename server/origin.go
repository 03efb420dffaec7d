package server

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-go/shoal/internal/logs"
)

// origin is an Origin (RFC 6454): scheme, host and port, in the form in which two equal origins are equal values.
type origin struct {
	scheme, host, port string
}

// CheckOrigin returns an error unless a browser could send s as the Origin of a page: scheme://host or
// scheme://host:port, without a path or a pattern. The default port of http and https may be written or left out.
func CheckOrigin(s string) error {
	_, err := parseOrigin(s)
	return err
}

// parseOrigin returns the normalised form of an origin.
func parseOrigin(s string) (origin, error) {
	scheme, authority, found := strings.Cut(s, "://")
	u, err := url.Parse(s)
	switch {
	case !found || err != nil || u.Scheme == "" || u.Host == "" || u.Host != authority || u.User != nil:
		return origin{}, errors.New("not an origin, want scheme://host[:port] without a path, " +
			"such as https://app.example.com")
	case strings.Contains(authority, "*"):
		return origin{}, errors.New("it has a *, which matches no origin; want each origin by itself")
	}
	host, ok := normalHost(u.Hostname())
	if !ok {
		return origin{}, errors.New("it has a host that no browser sends; want its ASCII form, xn--… for other alphabets")
	}
	port := u.Port()
	if port == "" && strings.HasSuffix(authority, ":") || port != "" && !validPort(port) {
		return origin{}, errors.New("it has an invalid port, want 1 to 65535 without leading zeros")
	}
	scheme = strings.ToLower(scheme)
	if port == "" {
		port = defaultPort(scheme)
	}
	return origin{scheme, host, port}, nil
}

// normalHost returns a host in the form that browsers send: in lower case, an IP address in its canonical form. It
// reports false for a host that browsers do not send.
func normalHost(host string) (string, bool) {
	host = strings.ToLower(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String(), ip.Zone() == ""
	}
	valid := host != "" && !strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
	// A host whose last label is a number is an IPv4 address, which browsers send in its canonical form only.
	last := host[strings.LastIndexByte(host, '.')+1:]
	_, err := strconv.ParseUint(last, 10, 64)
	return host, valid && err != nil
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == port
}

func defaultPort(scheme string) string {
	switch scheme {
	case "http", "ws":
		return "80"
	case "https", "wss":
		return "443"
	}
	return ""
}

// originAllowed reports whether the page that makes the request may connect. A request without an Origin comes from
// a client that is not a browser, so no page can abuse a user's cookies or network through it. A refusal is logged.
func (s *Server) originAllowed(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return true
	}
	page, err := parseOrigin(values[0])
	if len(values) == 1 && err == nil && s.pageAllowed(page, r) {
		return true
	}
	s.logs.origin.Log(s.opt.Logger, slog.LevelInfo, "origin refused",
		"origin", logs.Truncate(strings.Join(values, ", ")), "host", logs.Truncate(r.Host), "remote", s.peer(r))
	return false
}

// pageAllowed reports whether pages of an origin may connect by this request.
func (s *Server) pageAllowed(page origin, r *http.Request) bool {
	origins := s.settings.Load().origins
	switch {
	case slices.Contains(origins, page), s.opt.AnyLocalOrigin && isLocal(page.host):
		return true
	case len(origins) > 0:
		return false
	}
	// Behind a proxy the scheme that the browser used is unknown, and the page's own is assumed.
	scheme := page.scheme
	if r.TLS != nil {
		scheme = "https"
	}
	own, err := parseOrigin(scheme + "://" + r.Host)
	return err == nil && page == own
}

// isLocal reports whether a host name means this machine.
func isLocal(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

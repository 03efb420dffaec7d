package server

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// originAllowed reports whether the page that makes the request may connect. A request without an Origin does
// not come from a browser, and so not from a page that abuses its user's cookies or network.
func (o *Options) originAllowed(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return true
	}
	origin, err := url.Parse(values[0])
	if len(values) > 1 || err != nil || origin.Host == "" {
		return false
	}
	if slices.ContainsFunc(o.AllowedOrigins, func(a string) bool { return strings.EqualFold(a, values[0]) }) {
		return true
	}
	if o.AnyLocalOrigin && local(origin.Hostname()) {
		return true
	}
	return len(o.AllowedOrigins) == 0 && strings.EqualFold(origin.Host, r.Host)
}

// local reports whether a host name means this machine.
func local(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

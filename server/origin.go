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
// a client that is not a browser, so no page can abuse a user's cookies or network through it, or isEmbedded refuses
// it. A refusal is logged.
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

// unixPeers is the entry of Options.TrustedProxies for peers on Unix sockets, which have no address.
const unixPeers = "unix"

// CheckTrustedProxy returns an error unless s is an address, a range of addresses in CIDR notation, or "unix".
func CheckTrustedProxy(s string) error {
	_, err := parseProxy(s)
	return err
}

// mappedBits is the length of the prefix of IPv6 addresses that are IPv4 addresses (::ffff:0:0/96).
const mappedBits = 96

// parseProxy returns a range of addresses, the zero value for "unix".
func parseProxy(s string) (netip.Prefix, error) {
	if s == unixPeers {
		return netip.Prefix{}, nil
	}
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	switch {
	case err == nil && prefix.Addr().Is4In6() && prefix.Bits() >= mappedBits:
		return parseProxy(netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-mappedBits).String())
	case err != nil:
		return netip.Prefix{}, errors.New(`want an address such as 10.0.0.1, a range such as 10.0.0.0/8, or "unix"`)
	case prefix.Masked() != prefix:
		return netip.Prefix{}, errors.New("it has address bits beyond its length, want " + prefix.Masked().String())
	}
	return prefix, nil
}

// proxies are the peers whose forwarding headers are trusted. They are immutable.
type proxies struct {
	ranges []netip.Prefix
	unix   bool
}

// newProxies returns the proxies of valid entries.
func newProxies(entries []string) (p proxies) {
	for _, entry := range entries {
		if prefix, err := parseProxy(entry); err == nil && prefix.IsValid() {
			p.ranges = append(p.ranges, prefix)
		} else {
			p.unix = p.unix || entry == unixPeers
		}
	}
	return p
}

// trusts reports whether a peer is a trusted proxy. The zero address is that of a Unix socket.
func (p *proxies) trusts(addr netip.Addr) bool {
	if !addr.IsValid() {
		return p.unix
	}
	for _, prefix := range p.ranges {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// TrustsProxy reports whether an address is one of Options.TrustedProxies, for listeners that speak the PROXY protocol.
func (s *Server) TrustsProxy(addr net.Addr) bool {
	return s.settings.Load().proxies.trusts(addrOf(addr.String()))
}

// addrOf returns the address of host:port, or the zero value.
func addrOf(hostPort string) netip.Addr {
	at, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

// peer returns the address of the client that made a request: that of the connection, or if it belongs to a trusted
// proxy, the one that X-Forwarded-For or Forwarded (RFC 7239) names. It is the zero value if it is not known.
//
// A proxy that sets one of the headers passes the other one on as the client has sent it. If both are there and
// disagree, the address is the proxy's.
func (s *Server) peer(r *http.Request) netip.Addr {
	direct, trusted := addrOf(r.RemoteAddr), &s.settings.Load().proxies
	if !trusted.trusts(direct) {
		return direct
	}
	lists := r.Header["X-Forwarded-For"]
	standard := r.Header["Forwarded"]
	switch {
	case len(standard) == 0:
		return trusted.client(direct, splitList(lists))
	case len(lists) == 0:
		return trusted.client(direct, forwardedFor(standard))
	}
	a, b := trusted.client(direct, splitList(lists)), trusted.client(direct, forwardedFor(standard))
	if a == b {
		return a
	}
	s.logs.proxies.Log(s.opt.Logger, slog.LevelWarn, "X-Forwarded-For and Forwarded disagree, using the proxy's address",
		"proxy", direct.String(), "x_forwarded_for", logs.Truncate(strings.Join(lists, ", ")),
		"forwarded", logs.Truncate(strings.Join(standard, ", ")),
		"remedy", "let the proxy remove the header that it does not set")
	return direct
}

// client returns the last address of a list of hops that is not a trusted proxy's. Each proxy appends its peer, so the
// list is true from its end up to there; earlier entries may be made up by the client. An entry that is no address ends
// the list.
func (p *proxies) client(direct netip.Addr, hops []string) netip.Addr {
	client := direct
	for i := len(hops) - 1; i >= 0; i-- {
		addr, ok := parseHop(hops[i])
		if !ok {
			break
		}
		client = addr
		if !p.trusts(addr) {
			break
		}
	}
	return client
}

// maxHops bounds the entries of a list of hops that are looked at, from the end.
const maxHops = 32

// splitList returns the last entries of a header that is a list, perhaps over several lines.
func splitList(lines []string) []string {
	var all []string
	for _, line := range lines {
		for entry := range strings.SplitSeq(line, ",") {
			all = append(all, strings.TrimSpace(entry))
		}
	}
	return all[max(0, len(all)-maxHops):]
}

// forwardedFor returns the for parameters of the last elements of a Forwarded header.
func forwardedFor(lines []string) []string {
	var hops []string
	for _, line := range lines {
		for _, element := range splitQuoted(line, ',') {
			hops = append(hops, forOf(element))
		}
	}
	return hops[max(0, len(hops)-maxHops):]
}

// forOf returns the for parameter of an element of a Forwarded header, "" unless there is exactly one.
func forOf(element string) (hop string) {
	given := 0
	for _, pair := range splitQuoted(element, ';') {
		if name, value, _ := strings.Cut(strings.TrimSpace(pair), "="); strings.EqualFold(name, "for") {
			hop = strings.Trim(value, `"`)
			given++
		}
	}
	if given > 1 {
		return ""
	}
	return hop
}

// splitQuoted splits text at the separators that are not within quotes: a proxy may quote a Host, which the client has
// chosen. It begins at the end, which the nearest proxy has written: a quote that the client has left open comes last.
// Only the last maxHops parts are split off.
func splitQuoted(text string, separator byte) (parts []string) {
	quoted, end := false, len(text)
	for i := len(text) - 1; i >= 0 && len(parts) < maxHops; i-- {
		switch before := text[:i]; {
		case text[i] == '"' && (i-len(strings.TrimRight(before, `\`)))%2 == 0: // no backslash escapes it
			quoted = !quoted
		case text[i] == separator && !quoted:
			parts = append(parts, text[i+1:end])
			end = i
		}
	}
	parts = append(parts, text[:end])
	slices.Reverse(parts)
	return parts
}

// parseHop parses an address with or without a port, an IPv6 address perhaps in brackets.
func parseHop(text string) (netip.Addr, bool) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.Addr().Unmap().WithZone(""), true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return addr.Unmap().WithZone(""), err == nil
}

// bucket returns the key by which an address is limited: for IPv6 its /64, which one subscriber usually has.
func bucket(addr netip.Addr) netip.Addr {
	const subscriberBits = 64
	if addr.Is4() || !addr.IsValid() {
		return addr
	}
	prefix, _ := addr.Prefix(subscriberBits) // 64 is a valid length
	return prefix.Addr()
}

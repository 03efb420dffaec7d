package server

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/shoal-go/shoal/internal/logs"
)

// unixPeers is the entry of Options.TrustedProxies for peers on Unix sockets, which have no address.
const unixPeers = "unix"

// CheckTrustedProxy returns an error unless s is an address, a range of addresses in CIDR notation, or "unix".
func CheckTrustedProxy(s string) error {
	_, err := parseProxy(s)
	return err
}

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
	case err != nil:
		return netip.Prefix{}, errors.New(`want an address such as 10.0.0.1, a range such as 10.0.0.0/8, or "unix"`)
	case prefix.Masked() != prefix:
		return netip.Prefix{}, errors.New("it has address bits beyond its length, want " + prefix.Masked().String())
	}
	return prefix, nil
}

// proxies are the peers whose word about the client's address is believed. They are immutable.
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
// A proxy that sets one of the headers passes the other one on as the client has sent it. If both are there and disagree,
// the address is the proxy's.
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
		return trusted.client(direct, forwardedFor(splitList(standard)))
	}
	a, b := trusted.client(direct, splitList(lists)), trusted.client(direct, forwardedFor(splitList(standard)))
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

// forwardedFor returns the for parameters of the elements of a Forwarded header; "" for an element without.
func forwardedFor(elements []string) []string {
	hops := make([]string, len(elements))
	for i, element := range elements {
		for pair := range strings.SplitSeq(element, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if strings.EqualFold(name, "for") {
				hops[i] = strings.Trim(value, `"`)
			}
		}
	}
	return hops
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

package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// resolveTimeout bounds the resolution of the routes when a server looks for itself among them.
const resolveTimeout = 2 * time.Second

// memberName returns the name that identifies this server as a member of its cluster. Members are never removed, so it
// must not change between two starts: it is the address by which the routes name this server, or
// else ClusterAddr. "" means that neither identifies it.
func (o Options) memberName() string {
	host, port, err := split(o.ClusterAddr)
	if err != nil || port == 0 {
		return ""
	}
	if slices.Contains(o.ClusterRoutes, o.ClusterAddr) {
		return routeName(o.ClusterAddr)
	}
	own := ownAddrs(host)
	var found []string
	for _, route := range o.ClusterRoutes {
		routeHost, routePort, err := split(route)
		if err == nil && routePort == port && slices.ContainsFunc(resolve(routeHost), func(ip net.IP) bool {
			return slices.ContainsFunc(own, ip.Equal)
		}) {
			found = append(found, route)
		}
	}
	ip := net.ParseIP(host)
	switch {
	case len(found) == 1:
		return routeName(found[0])
	case host == "" || ip != nil && ip.IsUnspecified():
		return ""
	default:
		return routeName(o.ClusterAddr)
	}
}

// routeName returns an address in the form of a server's name, which holds neither dots nor colons.
func routeName(address string) string {
	return strings.NewReplacer(".", "_", ":", "-", "[", "", "]", "").Replace(address)
}

// ownAddrs returns the IP addresses of this machine that a host stands for.
func ownAddrs(host string) []net.IP {
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return resolve(host)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var own []net.IP
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			own = append(own, n.IP)
		}
	}
	return own
}

func resolve(host string) []net.IP {
	if ip := net.ParseIP(host); ip != nil {
		return []net.IP{ip}
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	return ips
}

// ErrBehind is returned by Ready while the server lacks stored state, or the cluster a majority.
var ErrBehind = errors.New("embedded: the NATS server has not caught up with its cluster")

// ErrCannotStore is returned by Ready after a write to the folder of the messages has failed, such as on a full disk.
// The server stores nothing more, even if there is room again, until it is restarted.
var ErrCannotStore = errors.New("embedded: the NATS server cannot store messages; make room and restart this node")

// Ready returns nil if the server has everything that it should store. Else the error wraps ErrCannotStore and names
// the file, or it wraps ErrBehind and names the configured members that this server is not connected to. Do not stop
// another server on purpose before: the majority that then remains may lack the state. It does not block on other
// servers.
func (s *Server) Ready() error {
	v := healthResponse{header: make(http.Header)}
	s.server.HandleHealthz(&v, &http.Request{Method: http.MethodGet, URL: new(url.URL)})
	if v.status == http.StatusOK {
		return nil
	}
	if reason := v.reason(); strings.Contains(reason, "write error") {
		return fmt.Errorf("%w: %s", ErrCannotStore, reason)
	}
	missing := s.missing()
	if len(missing) == 0 {
		return ErrBehind
	}
	return fmt.Errorf("%w: %d of %d members are connected, %d are needed, missing: %s", ErrBehind,
		len(s.members)-len(missing), len(s.members), len(s.members)/2+1, strings.Join(missing, ", "))
}

// missing returns the addresses of the members in the options that are not connected.
func (s *Server) missing() []string {
	connected := map[string]bool{s.server.Name(): true}
	if routes, err := s.server.Routez(new(server.RoutezOptions)); err == nil {
		for _, r := range routes.Routes {
			connected[r.RemoteName] = true
		}
	}
	var missing []string
	for _, address := range s.members {
		if !connected[routeName(address)] {
			missing = append(missing, address)
		}
	}
	return missing
}

// healthResponse records the server's health. It is not safe for concurrent use.
type healthResponse struct {
	header http.Header
	status int
	body   []byte
}

func (h *healthResponse) Header() http.Header { return h.header }

func (h *healthResponse) WriteHeader(status int) { h.status = status }

func (h *healthResponse) Write(p []byte) (int, error) {
	if h.status == 0 {
		h.status = http.StatusOK
	}
	h.body = append(h.body, p...)
	return len(p), nil
}

// reason returns the server's reason for not being healthy, or "".
func (h *healthResponse) reason() string {
	var health server.HealthStatus
	if json.Unmarshal(h.body, &health) != nil {
		return ""
	}
	return health.Error
}

package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options configure a Server. The zero value is a single server that only this process can reach.
type Options struct {
	// Name is the name of a single server. "": a random one. In a cluster, servers are identified by their address in
	// ClusterRoutes instead, or else by ClusterAddr: a name that changes would make the cluster count one member
	// more. Name is used only if neither identifies the server, and must then stay the same and be unique.
	Name string
	// Addr is the host:port of a listener for other processes. "": none. Port 0 selects a free one. It requires no
	// credentials, so it has to be a loopback address or otherwise protected.
	Addr string

	// ClusterAddr is the host:port at which the other servers of the cluster reach this one. "": a single server.
	ClusterAddr string
	// ClusterRoutes are the host:port of the servers of the cluster, preferably the same list on all. Some of them may
	// be unreachable, or this server itself.
	ClusterRoutes []string
	// ClusterName must be the same on all servers. "": shoal.
	ClusterName string
	// ClusterSecret authenticates servers to each other and must be the same on all. It is required unless ClusterAddr
	// is a loopback address. It crosses the network in plain text: untrusted links need a tunnel.
	ClusterSecret string

	// StoreDir is the directory of the server's state, and of messages stored in files, of one server at a time. "": a
	// temporary directory that Close removes.
	StoreDir string
	// MaxMemory bounds the messages stored in memory, in bytes. 0: 1 GiB.
	MaxMemory int64
	// StartTimeout bounds how long Start waits for the server. 0: 10 seconds.
	StartTimeout time.Duration

	// Logger receives the log of the server, from notices on. nil: nothing is logged.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	o.ClusterName = cmp.Or(o.ClusterName, "shoal")
	o.MaxMemory = cmp.Or(o.MaxMemory, 1<<30)
	o.StartTimeout = cmp.Or(o.StartTimeout, 10*time.Second)
	return o
}

// validate returns all errors at once. None holds the secret.
func (o Options) validate() error {
	var all []error
	refuse := func(field string, value any, want string) {
		all = append(all, fmt.Errorf("embedded: Options.%s is %v, want %s", field, value, want))
	}
	for _, a := range []struct{ field, value string }{{"Addr", o.Addr}, {"ClusterAddr", o.ClusterAddr}} {
		if _, _, err := split(a.value); a.value != "" && err != nil {
			refuse(a.field, fmt.Sprintf("%.80q", a.value), "host:port")
		}
	}
	for i, route := range o.ClusterRoutes {
		if host, port, err := split(route); err != nil || host == "" || port < 1 {
			refuse(fmt.Sprintf("ClusterRoutes[%d]", i), fmt.Sprintf("%.80q", route), "host:port")
		}
	}
	if o.ClusterAddr == "" && len(o.ClusterRoutes) > 0 {
		all = append(all, errors.New(
			"embedded: Options.ClusterRoutes need Options.ClusterAddr, where the others reach this server"))
	}
	if host, _, err := split(o.ClusterAddr); err == nil && o.ClusterSecret == "" && !loopback(host) {
		all = append(all, errors.New("embedded: Options.ClusterSecret is missing: servers that are not on loopback need one"))
	}
	if strings.ContainsAny(o.Name, " \t\r\n.*>") || strings.ContainsAny(o.ClusterName, " \t\r\n") {
		all = append(all, errors.New(
			"embedded: Options.Name and Options.ClusterName must hold no white space, the name no . * >"))
	}
	if o.MaxMemory < 0 {
		refuse("MaxMemory", o.MaxMemory, "at least 1, or 0 for the default")
	}
	if o.StartTimeout < 0 {
		refuse("StartTimeout", o.StartTimeout, "more than 0, or 0 for the default")
	}
	return errors.Join(all...)
}

// split splits a host:port. An empty address is an error.
func split(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	if err == nil && (port < 0 || port > 1<<16-1) {
		err = strconv.ErrRange
	}
	return host, port, err
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// clusterUser is the user name that servers present with the secret.
const clusterUser = "shoal"

// members returns the addresses of all members that the options name, this one among them if ClusterAddr or a route
// identifies it.
func (o Options) members() []string {
	var members []string
	for _, route := range o.ClusterRoutes {
		if !slices.Contains(members, route) {
			members = append(members, route)
		}
	}
	own := o.memberName()
	if own != "" && !slices.ContainsFunc(members, func(route string) bool { return routeName(route) == own }) {
		members = append(members, o.ClusterAddr)
	}
	return members
}

// ClusterSize returns how many servers the options name, this one among them. It may resolve the names in ClusterRoutes
// to recognize this server there. A server that it does not recognize counts in addition to the routes.
func (o Options) ClusterSize() int {
	size := len(o.members())
	if o.memberName() == "" {
		size++
	}
	return size
}

// routes returns ClusterRoutes as URLs.
func (o Options) routes() []*url.URL {
	var routes []*url.URL
	for _, route := range o.ClusterRoutes {
		u := &url.URL{Scheme: "nats-route", Host: route}
		if o.ClusterSecret != "" {
			u.User = url.UserPassword(clusterUser, o.ClusterSecret)
		}
		routes = append(routes, u)
	}
	return routes
}

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

package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Options configure a Server. The zero value is a server alone that only this process can reach.
type Options struct {
	// Name is this server's name, which no other in the cluster may have. "": a random one.
	Name string
	// Addr is a host:port at which other processes reach the server. "": none. Port 0 is a free one. It asks
	// for no credentials, and so has to be a loopback address or otherwise out of the reach of strangers.
	Addr string

	// ClusterAddr is the host:port at which the other servers of the cluster reach this one. "": it is alone.
	ClusterAddr string
	// ClusterRoutes are the host:port of other servers, of which some may be away, or this one itself.
	ClusterRoutes []string
	// ClusterName is the same on all servers. "": shoal.
	ClusterName string
	// ClusterSecret is what servers know each other by, the same on all. It is required unless ClusterAddr is a
	// loopback address. It crosses the network as it is: links that strangers may read need a tunnel.
	ClusterSecret string

	// StoreDir is where the server keeps its state, and messages if they are kept in files. "": a temporary folder
	// that Close removes.
	StoreDir string
	// MaxMemory bounds the messages kept in memory, in bytes. 0: 1 GiB.
	MaxMemory int64
	// StartTimeout bounds how long Start waits for the server to be ready. 0: 10 seconds.
	StartTimeout time.Duration

	// Logger gets what the server has to say, from notices on. nil: nothing is logged.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.ClusterName == "" {
		o.ClusterName = "shoal"
	}
	if o.MaxMemory == 0 {
		o.MaxMemory = 1 << 30
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 10 * time.Second
	}
	return o
}

// validate returns every complaint at once. None of them holds the secret.
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
		refuse("MaxMemory", o.MaxMemory, "0 or more")
	}
	if o.StartTimeout < 0 {
		refuse("StartTimeout", o.StartTimeout, "0 or more")
	}
	return errors.Join(all...)
}

// split takes a host:port apart. An empty address is an error.
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

// clusterUser is whom servers introduce themselves as, with the secret.
const clusterUser = "shoal"

// routes returns the other servers as the server wants to be told of them.
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

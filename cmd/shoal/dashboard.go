package main

import (
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/shoal-go/shoal/cmd/shoal/internal/dashboard"
	"github.com/shoal-go/shoal/server"
)

// openDashboard opens the dashboard of the admin listener, unless --dashboard is off.
func (n *node) openDashboard() (err error) {
	if n.flags.Dashboard == "off" {
		return nil
	}
	n.dashboard, err = dashboard.New(dashboard.Options{
		Manager: n.manager, Server: n.server, API: n.unprefixedAPI(), Residence: &n.residence,
		Trusted: n.readsFreely, Node: n.flags.NodeName, Version: buildVersion(), Logger: n.log,
	})
	return err
}

// readsFreely reports whether a request may read users, addresses and messages on the dashboard without an API key.
//
// With "auto" it must come to a loopback address and name this machine as its host: a web page anywhere could have its
// own name resolve to a loopback address, and would then read in the operator's browser. Proxies usually say that they
// forward a request, and whom they forward it for is not known here.
func (n *node) readsFreely(r *http.Request) bool {
	switch n.flags.Dashboard {
	case "open":
		return true
	case "auto":
		address, ok := n.admin.Addr().(*net.TCPAddr)
		return ok && address.IP.IsLoopback() && isLocalHost(r.Host) && !isForwarded(r)
	}
	return false
}

// isForwarded reports whether a proxy says that it forwards a request.
func isForwarded(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

// unprefixedAPI returns the HTTP API without --path-prefix, which is for the public listeners.
func (n *node) unprefixedAPI() http.Handler {
	api := n.metrics.instrument(n.server.APIHandler())
	prefix := n.flags.PathPrefix
	if prefix == "" {
		return api
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		prefixed := new(http.Request)
		*prefixed = *r
		prefixed.URL = new(url.URL)
		*prefixed.URL = *r.URL
		prefixed.URL.Path = prefix + r.URL.Path
		if r.URL.RawPath != "" {
			prefixed.URL.RawPath = prefix + r.URL.RawPath
		}
		api.ServeHTTP(w, prefixed)
	})
}

// observer returns the observer of the server: the metrics, and the dashboard while somebody looks at it.
func (n *node) observer() server.Observer {
	observer := n.metrics.Observer()
	measure := observer.Written
	observer.Written = func(age time.Duration) {
		measure(age)
		n.residence.Observe(age)
	}
	return observer
}

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/shoal-go/shoal/cmd/shoal/internal/dashboard"
	"github.com/shoal-go/shoal/internal/demo"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// devTokenTTL is how long a token of development lasts: long enough for a day's work on a page.
const devTokenTTL = 12 * time.Hour

// signer returns a token for an identity.
type signer func(server.Identity) (string, error)

// newDevHandler returns the handler of a development server: the server's own paths, tokens for everybody, and
// the demo page.
func newDevHandler(sign signer, api, page http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/ws/uploads", api)
	mux.Handle("/events/", api)
	tokens := http.NewServeMux() // a separate one, so that other methods get 405 instead of the page
	tokens.Handle("GET /dev/token", devTokens(sign))
	mux.Handle("/dev/token", tokens)
	mux.Handle("/", page)
	return localOnly(dashboard.AheadOf(mux, "/v1/", api))
}

// localOnly refuses requests that name another host than this machine. A web page anywhere could have its own
// name resolve to a loopback address, and would then be of the same origin as this server, which lets
// everybody in.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLocalHost(r.Host) {
			http.Error(w, "a development server answers to localhost only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLocalHost reports whether the host of a request, with or without a port, names this machine.
func isLocalHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return isLoopback(strings.ToLower(strings.Trim(host, "[]")))
}

// signToken signs a token that the server accepts: with the newest secret.
func (n *node) signToken(id server.Identity) (string, error) {
	return jwtauth.SignHS256([]byte(*n.secret.Load()), id, partyClaims(n.flags.JWTAudience, n.flags.JWTIssuer))
}

// devTokens answers GET /dev/token?user=U with a token for that user.
func devTokens(sign signer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user := r.URL.Query().Get("user")
		w.Header().Set("Cache-Control", "no-store")
		if manager.CheckID("user", user) != nil {
			demo.WriteJSON(w, http.StatusBadRequest, "application/problem+json", map[string]any{
				"type": "about:blank", "title": "Bad Request", "status": http.StatusBadRequest,
				"detail": "the parameter user must be the id of a user: 1 to 255 bytes without control characters",
			})
			return
		}
		expires := time.Now().Add(devTokenTTL).Truncate(time.Second)
		token, err := sign(server.Identity{UserID: user, Expires: expires})
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		demo.WriteJSON(w, http.StatusOK, "application/json", map[string]any{"token": token, "expires_at": expires.UTC()})
	}
}

// printWelcome prints the server's addresses, and in development a command to try.
func (n *node) printWelcome(out io.Writer) {
	fmt.Fprintf(out, "shoal serves on %s, health on %s\n", strings.Join(n.urls(), ", "), n.admin.url())
	if !n.flags.Dev {
		return
	}
	key := "$SHOAL_API_KEY" // a key of the operator's own is not printed
	if n.flags.APIKey[0] == devSecret {
		key = devSecret
	}
	for _, l := range n.public {
		if url := l.url(); !strings.HasPrefix(url, unixScheme) {
			fmt.Fprintf(out, "demo page: %s/\n", url)
			fmt.Fprintf(out, "follow the upload \"demo\" there, and try:\n%s\n", curlLine(url, key))
			return
		}
	}
	// No browser reaches a Unix socket.
	path := strings.TrimPrefix(n.public[0].url(), unixScheme)
	fmt.Fprintf(out, "try:\n%s\n", curlLine("--unix-socket "+path+" http://localhost", key))
}

// curlLine is a command that publishes a message. The address may begin with options of curl.
func curlLine(address, key string) string {
	const message = `{"action":"upload_progress","payload":{"upload_id":"demo","status":"working",` +
		`"stage":"looking","progress_percent":42,"message":"Hello from curl",` +
		`"error_message":null,"description_audit_score":null}}`
	return fmt.Sprintf(`curl -H "Authorization: Bearer %s" -H "Content-Type: application/json" `+
		`-d '%s' %s/v1/uploads/demo/messages`, key, message, address)
}

// openDashboard opens the dashboard of the admin listener, unless --dashboard is off.
func (n *node) openDashboard() (err error) {
	if n.flags.Dashboard == "off" {
		return nil
	}
	n.dashboard, err = dashboard.New(dashboard.Options{
		Manager: n.manager, Server: n.server, API: n.unprefixedAPI(), Residence: &n.residence, Ready: n.ready,
		Trusted: n.readsFreely, Node: n.name, Version: buildVersion(), Logger: n.log,
	})
	return err
}

// readsFreely reports whether a request may read users, addresses and messages on the dashboard without an API key.
//
// With "auto" it must reach a loopback address and name this machine as its host: a web page anywhere could have its
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
	api := n.metrics.instrument(n.flags.PathPrefix, n.server.APIHandler())
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

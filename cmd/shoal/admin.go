package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/shoal-go/shoal/internal/printable"
	"github.com/shoal-go/shoal/server/shoalprom"
)

// metrics are those of a node, which /metrics of the admin listener exports.
type metrics struct {
	*shoalprom.Metrics
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	// certificate is the end of the certificate's validity, 0 without TLS.
	certificate prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{
		Metrics:  shoalprom.New(),
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "shoal_http_request_seconds", Help: "Duration of requests of the HTTP API, by route, method and status.",
			Buckets: prometheus.ExponentialBuckets(200e-6, 4, 9), NativeHistogramBucketFactor: 1.1,
			NativeHistogramMaxBucketNumber: 100,
		}, []string{"route", "method", "code"}),
		certificate: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_certificate_expiry_timestamp_seconds",
			Help: "When the certificate of the listener expires; 0 without TLS.",
		}),
	}
	m.requests.WithLabelValues("/v1/uploads/{id}/messages", "post", "202") // there from the start
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "shoal_build_info", Help: "1, with the version of the program and of Go as labels.",
		ConstLabels: prometheus.Labels{"version": buildVersion(), "go_version": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.Metrics, m.requests, m.certificate, build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// countDroppedLines exports the number of log lines that were dropped.
func (m *metrics) countDroppedLines(w *logWriter) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "shoal_log_dropped_lines_total",
		Help: "Log lines that were dropped because their reader stands still or has gone.",
	}, func() float64 { return float64(w.dropped.Load()) }))
}

// certificateExpires notes when the certificate of the listener expires.
func (m *metrics) certificateExpires(at time.Time) { m.certificate.Set(float64(at.Unix())) }

// handler returns the handler of /metrics.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2})
}

// The parts of the API's paths that become labels. Others are "{id}" or "other", so that the number of labels is
// bounded.
var (
	apiResources = []string{"uploads", "users", "tokens", "stats", "nodes", "messages", "openapi.json"}
	apiActions   = []string{"messages", "subscribers", "connections", "subscriptions", "history", "newest", "uploads"}
)

// route returns the route of a path of the HTTP API, "" for another path. The path is percent-encoded, as an id may
// contain a slash. It begins with prefix, the value of --path-prefix.
func route(prefix, path string) string {
	const most = 6 // the slash at the beginning, v1, a resource, an id, an action, and the rest
	rest, ok := strings.CutPrefix(path, prefix)
	parts := strings.SplitN(rest, "/", most)
	for i, part := range parts {
		parts[i], _ = url.PathUnescape(part) // letters may be percent-encoded, too
	}
	if !ok || len(parts) < 3 || parts[0] != "" || parts[1] != "v1" {
		return ""
	}
	resource := parts[2]
	switch {
	case !slices.Contains(apiResources, resource):
		return "other"
	case len(parts) == 3:
		return "/v1/" + resource
	case len(parts) == 4:
		return "/v1/" + resource + "/{id}"
	case slices.Contains(apiActions, parts[4]):
		return "/v1/" + resource + "/{id}/" + parts[4]
	}
	return "other"
}

// instrument counts and times the requests of the HTTP API behind a prefix. Other requests may become WebSockets or
// streams.
func (m *metrics) instrument(prefix string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := route(prefix, r.URL.EscapedPath())
		if name == "" {
			next.ServeHTTP(w, r)
			return
		}
		of := m.requests.MustCurryWith(prometheus.Labels{"route": name})
		promhttp.InstrumentHandlerDuration(of, next).ServeHTTP(w, r)
	})
}

// handleProfiles serves the profiles of the runtime under /debug/pprof/, for --pprof. The command line is left out: it
// may hold secrets. The import of net/http/pprof also registers handlers at http.DefaultServeMux, which no listener
// uses.
func handleProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

// healthCommand asks a server for its health, for health checks of containers, which have no curl.
type healthCommand struct {
	AdminAddr string        `default:"127.0.0.1:9090" placeholder:"HOST:PORT|unix:PATH" help:"The server's --admin-addr."`
	Ready     bool          `help:"Ask whether it takes new connections, rather than whether it runs."`
	Timeout   time.Duration `default:"5s" min:"100ms" max:"1m" help:"Time for the answer."`
}

func (c *healthCommand) check(s *settings) {
	(&serveFlags{}).checkListener(s, "admin-addr", c.AdminAddr)
}

// Run prints the answer. The error, and with it the exit status, says that the server is not healthy.
func (c *healthCommand) Run(ctx context.Context, std streams) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	network, address := "tcp", c.AdminAddr
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		network, address = "unix", path
	} else {
		address = reachable(address)
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
		DisableKeepAlives: true,
	}
	path := "/healthz"
	if c.Ready {
		path = "/readyz"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://shoal"+path, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		reason, _ := networkReason(errors.Unwrap(err)) // without the URL, which is made up
		return fmt.Errorf("no answer from %s: %s; is --admin-addr that of the server?", c.AdminAddr, reason)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return fmt.Errorf("the answer of %s broke off: %w", c.AdminAddr, err)
	}
	answer := printable.Text(strings.TrimSpace(string(text)))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d: %s", path, response.StatusCode, answer)
	}
	return printLine(std.out, answer)
}

// reachable returns the address to connect to for an address to listen on: the loopback address for any address.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address // check has refused it
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}

// Command metrics serves the counts of a server: as JSON at /debug/vars, and for Prometheus at /metrics.
//
//	go run ./examples/metrics -addr 127.0.0.1:8080 -admin 127.0.0.1:9090
//	curl http://127.0.0.1:9090/metrics http://127.0.0.1:9090/debug/vars
package main

import (
	"context"
	"errors"
	"expvar"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/shoalprom"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address of clients")
	admin := flag.String("admin", "127.0.0.1:9090", "address of the metrics")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	public, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal("metrics: ", err)
	}
	private, err := net.Listen("tcp", *admin)
	if err == nil {
		log.Printf("metrics: http://%s, counts on http://%s", public.Addr(), private.Addr())
		err = run(ctx, public, private)
	}
	if err != nil {
		log.Fatal("metrics: ", err)
	}
}

// run serves clients and metrics until ctx ends.
func run(ctx context.Context, public, private net.Listener) error {
	m, err := manager.New(manager.Options{})
	if err != nil {
		return err
	}
	metrics := shoalprom.New()
	s, err := server.New(server.Options{
		Manager: m, Identify: identify, Authorize: server.AuthorizeOpen, Observer: metrics.Observer(),
	})
	if err != nil {
		return errors.Join(err, m.Close(context.Background()))
	}
	metrics.Attach(s)
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)

	vars := new(expvar.Map) // expvar.Publish("shoal", …) would add it to the variables of the whole process
	vars.Set("shoal", expvar.Func(func() any { return s.Stats() }))

	admin := http.NewServeMux()
	admin.Handle("/", s.AdminHandler()) // /healthz and /readyz
	admin.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	admin.HandleFunc("GET /debug/vars", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(vars.String()))
	})
	served := make(chan error, 2)
	go func() { served <- s.Serve(public) }()
	go func() { served <- s.ServeAdmin(private, admin) }()
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	return errors.Join(err, s.Close(closing), m.Close(closing))
}

// identify trusts a header, which a proxy that authenticates users has to set.
func identify(r *http.Request) (server.Identity, error) {
	user := r.Header.Get("X-User")
	if user == "" {
		return server.Identity{}, &server.TokenError{Message: "not logged in"}
	}
	return server.Identity{UserID: user}, nil
}

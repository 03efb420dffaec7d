// Command routers mounts Shoal in gin, chi and echo, each behind its usual middlewares.
//
//	go run ./examples/routers -addr 127.0.0.1:8080 -router gin
//	curl -H "Authorization: Bearer key" -H "Content-Type: application/json" -d '{"action":"note"}' \
//	    http://127.0.0.1:8080/rt/v1/uploads/1/messages
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"
	"github.com/labstack/echo/v5"
	echomiddleware "github.com/labstack/echo/v5/middleware"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	router := flag.String("router", "gin", "gin, chi or echo")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", *addr)
	if err == nil {
		log.Printf("routers: http://%s", ln.Addr())
		err = run(ctx, ln, *router)
	}
	if err != nil {
		log.Fatal("routers: ", err)
	}
}

// apiKey stands for a secret of the configuration.
const apiKey = "key"

// run serves until ctx ends.
func run(ctx context.Context, ln net.Listener, router string) error {
	mount, known := routers[router]
	if !known {
		return fmt.Errorf("no router %q", router)
	}
	m, err := manager.New(manager.Options{})
	if err != nil {
		return err
	}
	s, err := server.New(server.Options{
		Manager: m, Identify: identify, Authorize: server.AuthorizeOpen, APIKeys: []string{apiKey},
		PathPrefix: "/rt", // the path under which all routers below mount the API
	})
	if err != nil {
		return errors.Join(err, m.Close(context.Background()))
	}
	web := &http.Server{Handler: mount(s), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	return errors.Join(err, s.Close(closing), web.Shutdown(closing), m.Close(closing))
}

// routers are the functions that mount the WebSocket at /rt/live and the API below /rt/v1.
var routers = map[string]func(*server.Server) http.Handler{"gin": ginRouter, "chi": chiRouter, "echo": echoRouter}

func ginRouter(s *server.Server) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.Use(gin.Recovery())
	r.GET("/rt/live", gin.WrapH(s.WebSocketHandler()))
	r.Any("/rt/v1/*path", gin.WrapH(s.APIHandler()))
	return r
}

func chiRouter(s *server.Server) http.Handler {
	r := chi.NewRouter()
	r.Use(chimiddleware.RequestID, chimiddleware.Recoverer, chimiddleware.Compress(5))
	r.Route("/rt", func(r chi.Router) {
		r.Handle("/live", s.WebSocketHandler())
		r.Handle("/v1/*", s.APIHandler()) // chi does not strip "/rt": Options.PathPrefix does
	})
	return r
}

func echoRouter(s *server.Server) http.Handler {
	e := echo.New()
	e.Use(echomiddleware.Recover(), echomiddleware.Gzip())
	e.GET("/rt/live", echo.WrapHandler(s.WebSocketHandler()))
	e.Any("/rt/v1/*", echo.WrapHandler(s.APIHandler()))
	return e
}

// identify trusts a header, which a proxy that authenticates users has to set.
func identify(r *http.Request) (server.Identity, error) {
	user := r.Header.Get("X-User")
	if user == "" {
		return server.Identity{}, &server.TokenError{Message: "not logged in"}
	}
	return server.Identity{UserID: user}, nil
}

// Command nodes runs two nodes that share messages through a NATS server in this process. In production each node is a
// process of its own, with Options.ClusterRoutes of the embedded server or the URL of a NATS or Redis server.
//
//	go run ./examples/nodes -addr 127.0.0.1:8080 -second 127.0.0.1:8081
//	curl -N -H "X-User: ann" http://127.0.0.1:8081/events/uploads/1
//	curl -H "Authorization: Bearer key" -H "Content-Type: application/json" -d '{"action":"note"}' \
//	    http://127.0.0.1:8080/v1/uploads/1/messages
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func main() {
	first := flag.String("addr", "127.0.0.1:8080", "address of the first node")
	second := flag.String("second", "127.0.0.1:8081", "address of the second node")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var listeners []net.Listener
	for _, addr := range []string{*first, *second} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			log.Fatal("nodes: ", err)
		}
		log.Printf("nodes: http://%s", ln.Addr())
		listeners = append(listeners, ln)
	}
	if err := run(ctx, listeners); err != nil {
		log.Fatal("nodes: ", err)
	}
}

// apiKey stands for a secret of the configuration.
const apiKey = "key"

// run serves a node on each listener until ctx ends.
func run(ctx context.Context, listeners []net.Listener) error {
	nats, err := embedded.Start(embedded.Options{})
	if err != nil {
		return err
	}
	ended := make(chan error, len(listeners))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, ln := range listeners {
		go func() {
			err := node(ctx, nats, ln)
			cancel() // without one node the others end too
			ended <- err
		}()
	}
	for range listeners {
		err = errors.Join(err, <-ended)
	}
	return errors.Join(err, nats.Close())
}

// node serves one node until ctx ends.
func node(ctx context.Context, nats *embedded.Server, ln net.Listener) error {
	b, err := natsbroker.New(natsbroker.Options{Server: nats})
	if err != nil {
		return err
	}
	m, err := manager.New(manager.Options{Broker: b, NodeName: ln.Addr().String()})
	if err != nil {
		return err
	}
	s, err := server.New(server.Options{
		Manager: m, Identify: identify, Authorize: server.AuthorizeOpen, APIKeys: []string{apiKey},
	})
	if err != nil {
		return errors.Join(err, m.Close(context.Background()))
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }() // /readyz of AdminHandler answers 503 until the node has joined the others
	select {
	case err = <-served:
	case err = <-m.BrokerFailed(): // wrong credentials, for example: the node would stay alone
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

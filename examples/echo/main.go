// Command echo is a WebSocket server that sends every message back, for conformance suites such as Autobahn|Testsuite.
// It shows Options.Identify, which replaces the authentication of the protocol, and Options.OnMessage.
//
//	go run ./examples/echo -addr 127.0.0.1:9001
//
// The endpoint is ws://127.0.0.1:9001/ws/uploads. Everybody may connect, so it must not be reachable from a network.
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
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9001", "address to listen on")
	flag.Parse()
	if err := run(*addr); err != nil {
		log.Fatal("echo: ", err)
	}
}

// run serves until the process is interrupted.
func run(addr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	m, s, err := newEcho()
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	fmt.Printf("ws://%s/ws/uploads\n", ln.Addr())
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(err, s.Close(closing), m.Close(closing))
}

// Limits of the echo server: suites send messages of 16 MiB, and thousands of them in a row.
const (
	largest = 16 << 20
	rate    = 1e6
	quiet   = 10000 * time.Hour
)

// newEcho returns a server whose connections all belong to users of their own.
func newEcho() (*manager.Manager, *server.Server, error) {
	m, err := manager.New(manager.Options{})
	if err != nil {
		return nil, nil, err
	}
	var users atomic.Uint64
	s, err := server.New(server.Options{
		Manager: m,
		Identify: func(*http.Request) (server.Identity, error) {
			return server.Identity{UserID: strconv.FormatUint(users.Add(1), 10)}, nil
		},
		Authorize:             server.AuthorizeOpen,
		OnMessage:             echo,
		MaxClientMessageBytes: largest,
		ClientMessageRate:     rate,
		ClientMessageBurst:    rate,
		QueueBytes:            4 * largest,
		QueueMessages:         1 << 16,
		QueueAge:              quiet, // a suite in an interpreter takes its time to read 16 MiB
		// A suite expects its own messages back and nothing else, so the JSON pings of the protocol stay away.
		PingInterval: quiet - time.Hour,
		IdleTimeout:  quiet,
	})
	if err != nil {
		return nil, nil, errors.Join(err, m.Close(context.Background()))
	}
	return m, s, nil
}

// echo sends a message back.
func echo(c *server.Client, m server.Incoming) bool {
	if m.Text {
		c.SendText(m.Data)
	} else {
		c.SendBinary(m.Data)
	}
	return true
}

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// Calls of a request.
const (
	callStart      = "start"
	callFill       = "fill"
	callDisconnect = "DisconnectAll"
	callClose      = "Close"
	callUsage      = "usage"
)

// closeTimeout bounds the closing of one connection.
const closeTimeout = 2 * time.Second

// request is a call of the server's side.
type request struct {
	Call string
	// Secure (start): serve TLS. Clients (fill): wait for this number of connections. Within: the deadline of the call.
	Secure  bool
	Clients int
	Within  time.Duration
}

// answer is the result of a request.
type answer struct {
	Address string // start
	Took    time.Duration
	Problem string // the error of the call
	Usage   usage
}

// usage is the resources of the server's process and the counts of the server.
type usage struct {
	Goroutines, Descriptors                 int
	Open, Connections, Users, Subscriptions int
}

// side is the server's side of a trial. It belongs to one goroutine.
type side struct {
	manager *manager.Manager
	server  *server.Server
	served  chan error
}

// stuckUpload is the upload that the stuck clients follow.
const stuckUpload = "stuck"

// do executes a request. The error is one of the trial itself.
func (s *side) do(q request) (a answer, err error) {
	start := time.Now()
	ctx, cancel := context.WithDeadline(context.Background(), start.Add(q.Within))
	defer cancel()
	var problem error
	switch q.Call {
	case callStart:
		a.Address, err = s.start(q.Secure)
	case callFill:
		err = s.fill(q.Clients)
	case callDisconnect:
		problem = s.manager.DisconnectAll(ctx)
	case callClose:
		problem = s.server.Close(ctx)
	case callUsage:
	default:
		err = fmt.Errorf("unknown call %q", q.Call)
	}
	a.Took = time.Since(start)
	if problem != nil {
		a.Problem = problem.Error()
	}
	if q.Call == callClose { // the rest must end, also after the deadline
		err = errors.Join(err, s.end())
	}
	a.Usage = s.usage()
	return a, err
}

// start serves on the loopback interface. Nothing but the calls of the trial ends a connection.
func (s *side) start(secure bool) (address string, err error) {
	if s.manager, err = manager.New(manager.Options{MaxConnectionsPerUser: -1}); err != nil {
		return "", err
	}
	const long = time.Hour
	s.server, err = server.New(server.Options{
		Manager: s.manager, Authorize: server.AuthorizeOpen,
		Authenticate: func(_ context.Context, token string) (server.Identity, error) {
			return server.Identity{UserID: token}, nil
		},
		AuthTimeout: long, PingInterval: long, IdleTimeout: 2 * long, QueueAge: long, QueueBytes: 64 << 20,
		QueueMessages: 1 << 20, CloseTimeout: closeTimeout,
	})
	if err != nil {
		return "", err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address = ln.Addr().String()
	if secure {
		own := httptest.NewTLSServer(nil)
		ln = tls.NewListener(ln, &tls.Config{Certificates: own.TLS.Certificates})
		own.Close()
	}
	s.served = make(chan error, 1)
	go func() { s.served <- s.server.Serve(ln) }()
	return address, nil
}

// fill waits until all clients are registered and publishes until no socket of a stuck client takes any more.
func (s *side) fill(clients int) error {
	const patience = 5 * time.Minute
	deadline := time.Now().Add(patience)
	for s.manager.Stats().Connections < clients {
		if time.Now().After(deadline) {
			return fmt.Errorf("only %d of %d clients are registered", s.manager.Stats().Connections, clients)
		}
		<-time.After(10 * time.Millisecond)
	}
	text := strings.Repeat("x", 32<<10)
	message, err := manager.Parse(stuckUpload, []byte(`{"action":"note","text":"`+text+`"}`), time.Now())
	if err != nil {
		return err
	}
	const messages, calm = 200, 20 // 6 MB, more than the buffers of both kernels
	for range messages {
		if _, err := s.manager.Publish(context.Background(), stuckUpload, message); err != nil {
			return err
		}
	}
	for still, before := 0, uint64(0); still < calm; <-time.After(25 * time.Millisecond) {
		now := s.server.Stats().SentBytes
		if still++; now != before {
			still, before = 0, now
		}
	}
	return nil
}

// end closes the rest after the call of the trial: stuck connections end by their own timeout.
func (s *side) end() error {
	if s.manager == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*closeTimeout)
	defer cancel()
	err := errors.Join(s.server.Close(ctx), s.manager.Close(ctx))
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	s.manager = nil
	return err
}

func (s *side) usage() usage {
	u := usage{Goroutines: runtime.NumGoroutine(), Descriptors: descriptors()}
	if s.manager != nil {
		all := s.server.Stats()
		u.Open, u.Connections, u.Users, u.Subscriptions = int(all.Open), all.Connections, all.Users, all.Subscriptions
	}
	return u
}

// descriptors counts the open files of this process; 0 where the system does not tell.
func descriptors() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}

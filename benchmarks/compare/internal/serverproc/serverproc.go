// Package serverproc runs one system under test in a process of its own, and publishes through it as the runner asks for.
package serverproc

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

// Published tells when publishing began, in nanoseconds of Unix time, by how much the latest message was late, and the
// usage of the machine before.
type Published struct {
	Began, Late int64
	Before      worker.Usage
}

// Options are the command of the process.
type Options struct {
	System string `required:"" help:"Name of the system."`
	// SendBuffer is the size in bytes of the kernel's send buffer of each connection. 0: the kernel decides.
	SendBuffer int    `help:"The kernel's send buffer of each connection, in bytes."`
	Host       string `default:"127.0.0.1" help:"Address to listen on."`
	TLS        bool   `name:"tls" help:"Serve TLS 1.3."`
	Program    string `help:"Executable of a system that is a program."`
	Broker     string `help:"URL of the broker that this project's node is connected to."`
}

// server is the service of the process.
type server struct {
	worker.Process
	entry  systems.Entry
	system systems.System
	addr   string
	number uint64 // of the newest message
}

// Run serves the system on a free port and answers calls until in ends. Then it ends the system, whose clients must have
// gone.
func (o Options) Run(in io.Reader, out io.Writer) (err error) {
	s := &server{}
	if s.entry, err = systems.Find(o.System); err != nil {
		return err
	}
	s.system, err = open(s.entry, o.Broker)
	if err != nil {
		return fmt.Errorf("serverproc: %s does not start: %w", o.System, err)
	}
	defer func() { err = errors.Join(err, s.Stop(), s.system.Close()) }()
	end, err := s.listen(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	return worker.Serve(in, out, s)
}

// open starts a system. A broker is for this project's only.
func open(e systems.Entry, url string) (systems.System, error) {
	if url == "" {
		return e.New()
	}
	name := nodes.NATS
	if strings.HasPrefix(url, "redis:") {
		name = nodes.Redis
	}
	b, err := nodes.Connect(name, url)
	if err != nil {
		return nil, err
	}
	return systems.NewShoal(b)
}

// listen has the system listen, or starts its program. The function that it returns ends the listening.
func (s *server) listen(o Options) (end func() error, err error) {
	var certificate, key string
	if o.TLS {
		folder, err := os.MkdirTemp("", "compare")
		if err != nil {
			return nil, fmt.Errorf("serverproc: %w", err)
		}
		defer os.RemoveAll(folder) // it is a temporary one
		if certificate, key, err = systems.Certificate(folder); err != nil {
			return nil, fmt.Errorf("serverproc: %w", err)
		}
	}
	host := cmp.Or(o.Host, "127.0.0.1")
	if program, ok := s.system.(systems.Program); ok {
		s.addr, s.Program, err = program.Start(o.Program, host, certificate, key)
		return func() error { return nil }, err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("serverproc: %w", err)
	}
	s.addr = ln.Addr().String()
	ln = listener{ln.(*net.TCPListener), o.SendBuffer} // it is one
	if o.TLS {
		config, err := systems.ServerTLS(certificate, key)
		if err != nil {
			return nil, errors.Join(err, ln.Close())
		}
		if own, ok := s.system.(systems.Secured); ok {
			ln = own.TLSListener(ln, config)
		} else {
			ln = tls.NewListener(ln, config)
		}
	}
	edge := &http.Server{Handler: s.system.Handler(), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan error, 1)
	go func() { served <- edge.Serve(ln) }()
	return func() error {
		_ = edge.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}, nil
}

// listener gives connections their send buffer.
type listener struct {
	*net.TCPListener
	sendBuffer int
}

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	if l.sendBuffer > 0 {
		_ = conn.SetWriteBuffer(l.sendBuffer) // fails for a connection that is gone
	}
	return conn, nil
}

// Addr returns the address of the system.
func (s *server) Addr(_ worker.None, addr *string) error {
	*addr = s.addr
	return nil
}

// Subscriptions returns the number of clients that are subscribed.
func (s *server) Subscriptions(_ worker.None, n *int) error {
	*n = s.system.Subscriptions()
	return nil
}

// Publish publishes messages round-robin over Channels: all at once, or Rate a second, each at its planned time, however late
// the ones before are.
func (s *server) Publish(q results.Params, a *Published) error {
	_ = s.Usage(false, &a.Before)
	if q.Rate > 0 {
		start, err := worker.Pace(q.Rate, q.Messages, func(i int, planned time.Time) error {
			a.Late = max(a.Late, int64(time.Since(planned)))
			return s.system.Publish([]message.Message{s.next(q, i, planned)})
		})
		a.Began = start.UnixNano()
		return err
	}
	messages := make([]message.Message, q.Messages)
	began := time.Now()
	a.Began = began.UnixNano()
	for i := range messages {
		messages[i] = s.next(q, i, began)
	}
	return s.system.Publish(messages)
}

// next makes message i of a load.
func (s *server) next(q results.Params, i int, sent time.Time) message.Message {
	s.number++
	return message.Message{Channel: message.Channel(i % q.Channels), Sent: sent.UnixNano(), Number: s.number, Size: q.Bytes}
}

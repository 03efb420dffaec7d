// Package serverproc runs one system under test in a process of its own, and publishes through it as the runner asks for.
package serverproc

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

// Published tells when publishing began, in nanoseconds of Unix time, and by how much the latest message was late.
type Published struct{ Began, Late int64 }

// Options describe a server. Program is the executable of a system that is a program, Host the address to listen on ("": 127.0.0.1),
// SendBuffer the size in bytes of the kernel's send buffer of each connection (0: the kernel decides),
// and Broker the URL of the broker that this project's node is connected to ("": none).
type Options struct {
	System, Program, Host, Broker string
	SendBuffer                    int
	TLS                           bool // 1.3
}

// Server is the service of a process with a system. Start is called first. When the server is closed, the clients must have gone.
type Server struct {
	worker.Closers
	system systems.System
	number int64 // of the newest message
}

// Start serves the system on a free port.
func (s *Server) Start(o Options, a *worker.Started) (err error) {
	entry, err := systems.Find(o.System)
	if err != nil {
		return err
	}
	if o.Broker == "" {
		s.system, err = entry.New()
	} else if b, failed := nodes.Connect(o.Broker); failed == nil {
		s.system, err = systems.NewShoal(b)
	} else {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("serverproc: %s does not start: %w", o.System, err)
	}
	s.Closers = append(s.Closers, s.system.Close)
	a.Addr, a.PID, err = s.listen(o)
	return err
}

// listen has the system listen, or starts its program, and returns the address and the program's id.
func (s *Server) listen(o Options) (addr string, pid int, err error) {
	var certificate, key string
	var config *tls.Config
	if o.TLS {
		folder, err := os.MkdirTemp("", "compare")
		if err != nil {
			return "", 0, fmt.Errorf("serverproc: %w", err)
		}
		defer os.RemoveAll(folder) // it is a temporary one
		if certificate, key, config, err = newCertificate(folder); err != nil {
			return "", 0, fmt.Errorf("serverproc: %w", err)
		}
	}
	host := cmp.Or(o.Host, "127.0.0.1")
	if program, ok := s.system.(systems.Program); ok {
		return program.Start(o.Program, host, certificate, key)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", 0, fmt.Errorf("serverproc: %w", err)
	}
	addr = ln.Addr().String()
	ln = listener{ln.(*net.TCPListener), o.SendBuffer} // it is one
	if own, ok := s.system.(systems.Secured); ok && o.TLS {
		ln = own.TLSListener(ln, config)
	} else if o.TLS {
		ln = tls.NewListener(ln, config)
	}
	edge := &http.Server{Handler: s.system.Handler(), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan error, 1)
	go func() { served <- edge.Serve(ln) }()
	s.Closers = append(s.Closers, func() error {
		_ = edge.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return addr, 0, nil
}

// newCertificate writes a new certificate and its key into a folder, as PEM files, and returns the configuration of a server under
// test with it: TLS 1.3, session tickets, and everything else as the standard library has it.
func newCertificate(folder string) (certificate, key string, config *tls.Config, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{systems.ServerName}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return "", "", nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", nil, err
	}
	certificate, key = filepath.Join(folder, "certificate.pem"), filepath.Join(folder, "key.pem")
	err = errors.Join(
		os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600))
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
	return certificate, key, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}, err
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

// Subscriptions returns the number of clients that are subscribed.
func (s *Server) Subscriptions(_ worker.None, n *int) error {
	*n = s.system.Subscriptions()
	return nil
}

// Publish publishes messages round-robin over Channels: all at once, or Rate a second, each at its planned time, however late
// the ones before are. Their number is then by how much they are late.
func (s *Server) Publish(q results.Params, a *Published) error {
	next := func(i int, sent time.Time, number int64) message.Message {
		return message.Message{
			Channel: message.Channel(i % q.Channels), Sent: sent.UnixNano(), Number: uint64(number), Size: q.Bytes, //nolint:gosec // not negative
		}
	}
	if q.Rate > 0 {
		start, err := worker.Pace(q.Rate, q.Messages, func(i int, planned time.Time) error {
			late := max(int64(time.Since(planned)), 0)
			a.Late = max(a.Late, late)
			return s.system.Publish([]message.Message{next(i, planned, late)})
		})
		a.Began = start.UnixNano()
		return err
	}
	messages := make([]message.Message, q.Messages)
	began := time.Now()
	a.Began = began.UnixNano()
	for i := range messages {
		s.number++
		messages[i] = next(i, began, s.number)
	}
	return s.system.Publish(messages)
}

package server_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// countingListener accepts connections that count their bytes. Their type embeds *net.TCPConn, so it also has a file
// descriptor that could be used past its Read and Write.
type countingListener struct {
	net.Listener
	read, written atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{conn.(*net.TCPConn), l}, nil // of a TCP listener
}

type countingConn struct {
	*net.TCPConn
	listener *countingListener
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.listener.read.Add(int64(n))
	return n, err
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	c.listener.written.Add(int64(n))
	return n, err
}

// All bytes pass through the methods of a connection whose type is not exactly a TCP or Unix connection.
func TestServer_UsesMethodsOfWrappedConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &countingListener{Listener: inner}
	n := startOn(t, ln)
	n.dial, n.patience = (&net.Dialer{}).DialContext, patience
	c := n.login("ann")
	read, written := ln.read.Load(), ln.written.Load()
	c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 1 })
	n.publish("a", 1)
	c.want(`{"action":"note","n":1}`)
	waitFor(t, func() bool { return ln.read.Load() > read && ln.written.Load() > written })
}

// The context of a client ends when the client leaves, also while a hook of it is running.
func TestClient_ContextEndsWithConnection(t *testing.T) {
	t.Run("TCP", func(t *testing.T) { contextEnds(t, start) })
	t.Run("TLS", func(t *testing.T) {
		contextEnds(t, func(_ testing.TB, change ...func(*manager.Options, *server.Options)) *node {
			return startTLS(t, change...)
		})
	})
}

func contextEnds(
	t *testing.T, start func(testing.TB, ...func(*manager.Options, *server.Options)) *node,
) {
	running, ended := make(chan struct{}), make(chan struct{})
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.OnMessage = func(c *server.Client, _ server.Incoming) bool {
			close(running)
			<-c.Context().Done()
			close(ended)
			return true
		}
	})
	c := n.raw(t, "")
	c.enter("ann")
	c.write(0x81, `{"action":"mine"}`)
	<-running
	if err := c.conn.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("the context outlives its connection")
	}
}

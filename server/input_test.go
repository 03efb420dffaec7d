package server_test

import (
	"net"
	"sync/atomic"
	"testing"
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

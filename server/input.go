package server

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"syscall"
)

// input is where a client's bytes come from. Its method wake may be called from any number of goroutines, the
// rest belongs to the goroutine that reads from the client.
type input struct {
	conn net.Conn
	// raw is the socket of conn; nil: it has none.
	raw syscall.RawConn
	// watched: the poller tells when something has come. If not, the client has a reader of its own.
	watched bool
	// place is where the poller keeps the client.
	place int32
	state atomic.Uint32
	// ending: the end of the stream has come. No event tells of it once more.
	ending atomic.Bool
}

// The states of a watched input. From silent on nobody reads until the poller wakes it; noted means that it did
// so while somebody was reading, who must look once more.
const (
	reading uint32 = iota
	noted
	silent
)

// wake says that there may be something to read, or that the connection has ended: reading will show. It
// reports whether the client is to be given a reader.
func (in *input) wake() bool {
	for {
		switch in.state.Load() {
		case silent:
			if in.state.CompareAndSwap(silent, reading) {
				return true
			}
		case reading:
			if in.state.CompareAndSwap(reading, noted) {
				return false
			}
		default:
			return false
		}
	}
}

// rest ends the reading, and reports whether it may end: not if the client was woken meanwhile.
func (in *input) rest() bool {
	if in.state.CompareAndSwap(reading, silent) {
		return true
	}
	in.state.Store(reading)
	return false
}

// socket is a connection whose file descriptor is read and written directly. It wakes the client when this side closes
// it: epoll reports nothing for that.
type socket struct {
	clientConn
	raw syscall.Conn
}

// SyscallConn gives access to the file descriptor.
func (s *socket) SyscallConn() (syscall.RawConn, error) { return s.raw.SyscallConn() }

// Close closes the connection.
func (s *socket) Close() error {
	err := s.clientConn.Close()
	s.client.awaken()
	return err
}

// clientConn is a client's connection. Closing it ends the contexts of the client's hooks.
type clientConn struct {
	net.Conn
	client *Client
}

// NetConn returns the connection that was accepted.
func (s *clientConn) NetConn() net.Conn { return s.Conn }

// Close closes the connection. tls.Conn.Close may block while it sends an alert, so the socket under it is closed
// instead.
func (s *clientConn) Close() error {
	conn := s.Conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	err := conn.Close()
	s.client.endContexts()
	return err
}

// CloseWrite closes this side of the connection, where the connection can.
func (s *clientConn) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// attach makes a connection the client's. The descriptor is used directly only for the types whose Read and Write do nothing
// else: a type of the embedder's that embeds one of them may count, throttle or encrypt.
func (c *Client) attach(conn net.Conn) {
	c.socket.clientConn = clientConn{conn, c}
	c.input.conn = &c.socket.clientConn
	switch conn := conn.(type) {
	case *net.TCPConn:
		c.socket.raw = conn
	case *net.UnixConn:
		c.socket.raw = conn
	default:
		return
	}
	raw, err := rawConn(c.socket.raw)
	if err != nil {
		return
	}
	c.input.raw, c.input.conn = raw, &c.socket
}

// start begins to read from the client, at first what was read already.
func (c *Client) start(early []byte) {
	c.input.watched = c.input.raw != nil && c.server.poller.add(c)
	if c.input.watched && len(early) == 0 && c.input.rest() {
		return
	}
	c.server.readers.hire(c, early)
}

// awaken has the client read from if nobody does.
func (c *Client) awaken() {
	if c.input.wake() {
		c.server.readers.serve(c)
	}
}

// hangUp notes that the client has closed its side, which no further event reports.
func (c *Client) hangUp() {
	c.input.ending.Store(true)
	c.endContexts()
}

package server

import (
	"crypto/tls"
	"net"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/shoal-go/shoal/internal/outbox"
)

// input is the read side of a connection. markReadable may be called from any goroutine; all else belongs to the
// goroutine that reads from the client.
type input struct {
	// raw gives access to the file descriptor; nil: Client.conn is read.
	raw syscall.RawConn
	// below is the connection below TLS if the poller can report its input, else nil.
	below *pollableConn
	// watched is true if the poller reports input. Otherwise the client has a dedicated reader.
	watched bool
	// registered is true while the client has a slot of the poller, pollSlot is the slot's index, and events are those
	// that the poller reports. They belong to the poller.
	registered bool
	pollSlot   int32
	events     uint32
	state      atomic.Uint32
	// hungUp is true once epoll has reported the end of the stream. It is edge-triggered and does not report that again,
	// so the socket is then read until EOF.
	hungUp atomic.Bool
	// handling is true while messages of the client may have come that are not read: while its handshake or a message is
	// being handled. The goroutine that handles them sets it.
	handling atomic.Bool
}

// The states of a watched input. No reader has a parked client until markReadable; readingAgain means that the poller
// has reported input while a reader had the client, which must then read once more.
const (
	reading uint32 = iota
	readingAgain
	parked
)

// markReadable notes that there may be input, or that the connection has ended. It reports whether the client must be
// queued for a reader.
func (in *input) markReadable() bool {
	for {
		switch in.state.Load() {
		case parked:
			if in.state.CompareAndSwap(parked, reading) {
				return true
			}
		case reading:
			if in.state.CompareAndSwap(reading, readingAgain) {
				return false
			}
		default:
			return false
		}
	}
}

// park ends the reading. It reports false if markReadable was called since the last read: then the caller must read
// again.
func (in *input) park() bool {
	if in.state.CompareAndSwap(reading, parked) {
		return true
	}
	in.state.Store(reading)
	return false
}

// socket is a connection whose file descriptor is read and written directly. It wakes the client when this side closes
// it: epoll reports nothing for that.
type socket struct {
	clientConn
}

// SyscallConn gives access to the file descriptor.
func (s *socket) SyscallConn() (syscall.RawConn, error) { return s.client.descriptorAccess(), nil }

// Close closes the connection.
func (s *socket) Close() error {
	err := s.clientConn.Close()
	s.client.readable()
	return err
}

// clientConn is a client's connection. Closing it ends the contexts of the client's hooks.
type clientConn struct {
	net.Conn
	client *Client
}

// NetConn returns the connection that was accepted.
func (s *clientConn) NetConn() net.Conn { return s.Conn }

// Write writes to the connection. It blocks until the socket has taken all bytes.
func (s *socket) Write(p []byte) (written int, err error) {
	if s.client.input.below == nil {
		return s.Conn.Write(p)
	}
	const piece = 16 << 10 // a record of TLS, so that the encrypted form of a large message is never held
	for part := range slices.Chunk(p, piece) {
		pending, err := s.TryWrite(part)
		if err == nil && pending {
			err = s.WritePending()
		}
		if err != nil {
			return written, err
		}
		written += len(part)
	}
	return written, nil
}

// TryWrite implements [outbox.TryWriter] for a connection over TLS.
func (s *socket) TryWrite(p []byte) (pending bool, err error) {
	below := s.client.input.below
	if len(p) > 0 {
		below.expect(len(p))
		_, err = s.Conn.Write(p)
	}
	return below.holds(), err
}

// WritePending implements [outbox.TryWriter] for a connection over TLS.
func (s *socket) WritePending() error { return s.client.input.below.writePending() }

// Close closes the connection.
func (s *clientConn) Close() error {
	err := outbox.CloseSocket(s.Conn)
	s.client.endContexts()
	if s.client.events != nil { // nothing reads from it and would notice
		s.client.readable()
	}
	return err
}

// CloseWrite closes this side of the connection, where the connection can.
func (s *clientConn) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// attach sets the connection of the client. The descriptor is used directly only for the types whose Read and Write do
// nothing else: a type of the embedder's that embeds one of them may count, throttle or encrypt.
func (c *Client) attach(conn net.Conn) {
	conn = transparent(conn)
	c.socket.clientConn = clientConn{conn, c}
	if c.input.below = pollable(c, conn); c.input.below != nil || syscallConn(conn) == nil {
		return
	}
	c.socket.Conn = detach(c, conn)
	c.input.raw, _ = rawConn(c.socket.Conn.(syscall.Conn)) // all that detach returns
}

// conn returns the connection of the client: the one that wakes its reader where that waits for the poller.
func (c *Client) conn() net.Conn {
	if c.input.raw != nil || c.input.below != nil {
		return &c.socket
	}
	return &c.socket.clientConn
}

// descriptorAccess returns access to the file descriptor of the client's socket, which may be below TLS, or nil.
func (c *Client) descriptorAccess() syscall.RawConn {
	if c.input.raw != nil {
		return c.input.raw
	}
	if below := c.input.below; below != nil {
		return below.raw
	}
	t, ok := c.socket.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	below := syscallConn(transparent(t.NetConn()))
	if below == nil {
		return nil
	}
	raw, _ := rawConn(below)
	return raw
}

// Transparent is a net.Conn around another one that by now adds nothing to its Read, Write and Close, such as a
// connection of a listener for the PROXY protocol whose header has been read. The server uses the other one directly.
type Transparent interface {
	net.Conn
	// Underlying returns the other connection, or nil while this one does add something.
	Underlying() net.Conn
}

// transparent returns the connection below transparent ones.
func transparent(conn net.Conn) net.Conn {
	for {
		t, ok := conn.(Transparent)
		if !ok {
			return conn
		}
		below := t.Underlying()
		if below == nil {
			return conn
		}
		conn = below
	}
}

// syscallConn returns a connection whose descriptor belongs to it alone, or nil.
func syscallConn(conn net.Conn) syscall.Conn {
	switch conn := conn.(type) {
	case *net.TCPConn:
		return conn
	case *net.UnixConn:
		return conn
	}
	return nil
}

// watchInput has the poller report the client's input and its end. It precedes all hooks of the client: their contexts
// end with the connection, and the writers can wait for its socket.
func (c *Client) watchInput() {
	switch {
	case c.input.raw != nil:
		c.input.watched = c.server.poller.add(c, c.input.raw)
	case c.input.below != nil:
		c.input.watched = c.server.poller.add(c, c.input.below.raw)
	default:
		if raw := c.descriptorAccess(); raw != nil { // below TLS: only the end of the stream can be seen without reading
			c.server.poller.watchHangUp(c, raw)
		}
	}
}

// start begins to read from the client, after watchInput. early holds bytes that the HTTP server has read ahead.
func (c *Client) start(early []byte) {
	c.input.handling.Store(false)
	switch {
	case !c.input.watched || len(early) > 0:
		c.server.readers.startDedicated(c, early)
	case c.input.below != nil || !c.input.park(): // a TLS connection may hold input that it has read ahead
		c.server.readers.enqueue(c)
	}
}

// readable queues the client for a reader, unless a reader has it.
func (c *Client) readable() {
	switch {
	case !c.input.markReadable():
	case c.events != nil:
		c.server.readers.running.Go(c.end)
	default:
		c.server.readers.enqueue(c)
	}
}

// hangUp notes that the client has closed its side, which no further event reports.
func (c *Client) hangUp() {
	c.input.hungUp.Store(true)
	c.endContexts()
}

package server

import (
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

// pollable is a connection over a socket.
type pollable interface {
	net.Conn
	syscall.Conn
}

// line is a pollable connection that wakes its client when this side closes it, of which no event tells.
type line struct {
	pollable
	client *Client
}

// Close closes the connection.
func (l *line) Close() error {
	err := l.pollable.Close()
	l.client.awaken()
	return err
}

// CloseWrite tells the client that nothing more will come, where the connection can.
func (l *line) CloseWrite() error {
	if c, ok := l.pollable.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// attach makes a connection the client's.
func (c *Client) attach(conn net.Conn) {
	c.input.conn = conn
	p, ok := conn.(pollable)
	if !ok {
		return
	}
	raw, err := rawConn(p)
	if err != nil {
		return
	}
	c.input.raw, c.line = raw, line{p, c}
	c.input.conn = &c.line
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

package server

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// TLSListener returns a listener whose connections are those of ln, with TLS. It is tls.NewListener, but on Linux a
// connection of Serve that is silent needs no goroutine and no buffers of its own, like one without TLS. ln must be a
// listener of TCP or Unix sockets, or return [Transparent] connections around such ones, for that.
//
// A configuration with DynamicRecordSizingDisabled writes many messages to one client in few records.
func TLSListener(ln net.Listener, config *tls.Config) net.Listener {
	return tls.NewListener(pollableListener{ln}, config)
}

type pollableListener struct{ net.Listener }

// Accept returns the next connection.
func (l pollableListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &pollableConn{Conn: conn}, nil
}

// pollableConn is a connection below a tls.Conn whose Read can return errNoInput instead of waiting, so that reading
// from the tls.Conn does not wait either. The state of the tls.Conn survives that error, which is a temporary one. Its
// Write can keep the bytes that the socket does not take at once.
type pollableConn struct {
	net.Conn
	// raw gives access to the file descriptor once reading and writing without waiting is possible.
	raw syscall.RawConn
	// waits: Read waits for input. It belongs to the goroutine that reads.
	waits bool
	// trying: Write does not wait. The owner of the client's outbox sets it.
	trying atomic.Bool

	// writing protects pending, and keeps an answer of crypto/tls out of a write. It is held during I/O; but the owner of
	// the outbox only such answers acquire it.
	writing sync.Mutex
	// pending are bytes that wait for the socket.
	pending []byte
}

// errNoInput is a temporary net.Error, like the error of an elapsed deadline.
var errNoInput error = &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}

// pollable returns the connection below a client's TLS connection of TLSListener, ready for reading without waiting, or
// nil.
func pollable(c *Client, conn net.Conn) *pollableConn {
	t, ok := conn.(*tls.Conn)
	if !ok {
		return nil
	}
	p, ok := t.NetConn().(*pollableConn)
	if !ok {
		return nil
	}
	below := transparent(p.Conn)
	if syscallConn(below) == nil {
		return nil
	}
	below = detach(c, below)
	raw, err := rawConn(below.(syscall.Conn)) //nolint:forcetypeassert // all that detach returns
	if err != nil {
		return nil
	}
	p.Conn, p.raw, p.waits = below, raw, true
	return p
}

// NetConn returns the connection that was accepted.
func (p *pollableConn) NetConn() net.Conn { return transparent(p.Conn) }

// Read reads from the connection.
func (p *pollableConn) Read(buf []byte) (int, error) {
	if p.raw == nil || p.waits {
		return p.Conn.Read(buf)
	}
	r := rawReads.Get().(*rawRead) // the pool holds nothing else
	defer r.release()
	r.buf = buf
	if err := p.raw.Read(r.attemptFunc); err != nil {
		return 0, err
	}
	if r.empty {
		return 0, errNoInput
	}
	return r.n, r.err
}

// Write writes to the connection, behind the pending bytes.
func (p *pollableConn) Write(buf []byte) (int, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	if !p.trying.Load() {
		if err := p.writePendingLocked(); err != nil {
			return 0, err
		}
		return p.Conn.Write(buf)
	}
	n := 0
	if len(p.pending) == 0 {
		w := rawWrites.Get().(*rawWrite) // the pool holds nothing else
		defer w.release()
		w.buf = buf
		if err := p.raw.Control(w.attemptFunc); err != nil {
			return 0, err
		}
		if n = w.n; w.err != nil {
			return n, w.err
		}
	}
	p.pending = append(p.pending, buf[n:]...)
	return len(buf), nil
}

// tried has Write wait again and reports whether bytes are left for writePending.
func (p *pollableConn) tried() (pending bool) {
	p.trying.Store(false)
	p.writing.Lock()
	defer p.writing.Unlock()
	return len(p.pending) > 0
}

// writePending writes the pending bytes. It blocks until the socket has taken them.
func (p *pollableConn) writePending() error {
	p.writing.Lock()
	defer p.writing.Unlock()
	return p.writePendingLocked()
}

func (p *pollableConn) writePendingLocked() error {
	rest := p.pending
	p.pending = nil
	if len(rest) == 0 {
		return nil
	}
	_, err := p.Conn.Write(rest)
	return err
}

// rawRead is one attempt to read from a file descriptor. attemptFunc is the method value of attempt: creating it for
// each read would allocate.
type rawRead struct {
	attemptFunc func(fd uintptr) bool
	buf         []byte
	n           int
	empty       bool
	err         error
}

var rawReads = sync.Pool{New: func() any {
	r := &rawRead{}
	r.attemptFunc = r.attempt
	return r
}}

func (r *rawRead) attempt(fd uintptr) bool {
	r.n, r.empty, r.err = tryRead(fd, r.buf)
	return true
}

func (r *rawRead) release() {
	r.buf, r.err = nil, nil
	rawReads.Put(r)
}

// rawWrite is one attempt to write to a file descriptor, as rawRead is one to read.
type rawWrite struct {
	attemptFunc func(fd uintptr)
	buf         []byte
	n           int
	err         error
}

var rawWrites = sync.Pool{New: func() any {
	w := &rawWrite{}
	w.attemptFunc = w.attempt
	return w
}}

func (w *rawWrite) attempt(fd uintptr) { w.n, w.err = tryWrite(fd, w.buf) }

func (w *rawWrite) release() {
	w.buf, w.err = nil, nil
	rawWrites.Put(w)
}

// readTLS reads from a TLS connection of TLSListener, and returns 0 bytes if there is no input and wait is false.
func (c *Client) readTLS(buf []byte, wait bool) (int, error) {
	c.input.below.waits = wait
	n, err := c.socket.Read(buf)
	if errors.Is(err, errNoInput) {
		return n, nil
	}
	return n, err
}

package server

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// TLSListener returns a listener whose connections are those of ln, with TLS. It is tls.NewListener, but on Linux a
// connection of Serve that is silent needs no goroutine and no buffers of its own, like one without TLS. ln must be a
// listener of TCP or Unix sockets, or return [Transparent] connections around such ones, for that.
//
// A connection that is not the server's yet, and has no deadline for writing, is closed when a write takes 30 seconds.
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
// from the tls.Conn does not wait either. The state of the tls.Conn survives that error, which is a temporary one.
//
// Once the client has it, Write never waits, whoever calls it: a tls.Conn writes with a lock held that its other
// writers and the answers of its Read acquire, such as the answer to a KeyUpdate, and those run on goroutines that
// serve many clients. It keeps the bytes that the socket does not take, for writePending. The tls.Conn orders the calls
// of Write, and pending the bytes, so its records reach the socket in their order.
type pollableConn struct {
	net.Conn
	// raw gives access to the file descriptor once reading and writing without waiting is possible.
	raw syscall.RawConn
	// waits: Read waits for input. It belongs to the goroutine that reads.
	waits bool
	// waiting: there are pending bytes.
	waiting atomic.Bool
	// room is the number of bytes that may be pending. The owner of the client's outbox sets it.
	room atomic.Int64

	// writing protects the fields below. It is held during system calls, but never while waiting for the socket.
	writing sync.Mutex
	// pending are bytes that wait for the socket.
	pending []byte
	// deadline is the one for writing, or zero. It has no effect once the client has the connection.
	deadline time.Time
}

// maxHeldAnswers bounds the answers of crypto/tls, of some 30 bytes each, that wait for a client that does not read.
const maxHeldAnswers = 4 << 10

// errTooManyAnswers is the error of a client that causes answers and does not read them.
var errTooManyAnswers = errors.New("server: the client does not read the answers of TLS")

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
	p.room.Store(maxHeldAnswers)
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

// Write writes to the connection, behind the pending bytes. It closes a connection that holds too many of them.
func (p *pollableConn) Write(buf []byte) (int, error) {
	if p.raw == nil {
		return p.writeInTime(buf)
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	n := 0
	if len(p.pending) == 0 {
		w := rawWrites.Get().(*rawWrite) // the pool holds nothing else
		defer w.release()
		w.buf = buf
		if err := p.raw.Control(w.attemptFunc); err != nil {
			return 0, err
		}
		if n = w.n; w.err != nil || n == len(buf) {
			return n, w.err
		}
	}
	if int64(len(p.pending)+len(buf)-n) > p.room.Load() {
		_ = p.Conn.Close()
		return n, errTooManyAnswers
	}
	p.pending = append(p.pending, buf[n:]...)
	p.waiting.Store(true)
	return len(buf), nil
}

// writeInTime writes to the connection within its deadline, or else within writeTimeout: while net/http reads a
// request, only its reading has a deadline, and an answer of crypto/tls would wait for a client that does not read,
// however long. It closes a connection that is too slow: crypto/tls would go on to the next answer.
func (p *pollableConn) writeInTime(buf []byte) (n int, err error) {
	if !p.bound() {
		return p.Conn.Write(buf)
	}
	defer p.unbound()
	if n, err = p.Conn.Write(buf); err != nil {
		_ = p.Conn.Close()
	}
	return n, err
}

// bound sets a deadline if there is none, and reports whether it has.
func (p *pollableConn) bound() bool {
	p.writing.Lock()
	defer p.writing.Unlock()
	return p.deadline.IsZero() && p.Conn.SetWriteDeadline(time.Now().Add(writeTimeout)) == nil
}

// unbound ends the deadline of bound.
func (p *pollableConn) unbound() {
	p.writing.Lock()
	defer p.writing.Unlock()
	_ = p.Conn.SetWriteDeadline(p.deadline)
}

// SetDeadline sets the deadlines of reading and writing.
func (p *pollableConn) SetDeadline(t time.Time) error {
	return errors.Join(p.SetReadDeadline(t), p.SetWriteDeadline(t))
}

// SetWriteDeadline sets the deadline of writing.
func (p *pollableConn) SetWriteDeadline(t time.Time) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.deadline = t
	return p.Conn.SetWriteDeadline(t)
}

// expect makes room for the records of n bytes, which take less than twice as many.
func (p *pollableConn) expect(n int) { p.room.Store(2*int64(n) + maxHeldAnswers) }

// holds reports whether there are bytes for writePending. Without any, the room is only for answers again.
func (p *pollableConn) holds() bool {
	if p.waiting.Load() {
		return true
	}
	p.room.Store(maxHeldAnswers)
	return false
}

// writePending writes the pending bytes. It blocks until the socket has taken them.
func (p *pollableConn) writePending() error {
	if !p.holds() {
		return nil
	}
	var err error
	closed := p.raw.Write(func(fd uintptr) bool {
		p.writing.Lock()
		defer p.writing.Unlock()
		var n int
		if n, err = tryWrite(fd, p.pending); err != nil {
			return true
		}
		if p.pending = p.pending[n:]; len(p.pending) > 0 {
			return false
		}
		p.pending = nil
		p.waiting.Store(false)
		return true
	})
	if closed != nil {
		return closed
	}
	p.holds()
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
	below := c.input.below
	below.waits = wait
	n, err := c.socket.Read(buf)
	if below.waiting.Load() {
		c.out.WritePending() // crypto/tls may have answered
	}
	if errors.Is(err, errNoInput) {
		return n, nil
	}
	return n, err
}

package server

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// readBuffer is how much is read from a client at once.
const readBuffer = 4 << 10

// reader is one goroutine that reads, with a connection of gws that parses what it reads: what one client has
// sent, then what another has. Clients are changed between two messages only, when nothing of either is left
// in gws. A client that stops in the middle of a message keeps its reader until the rest has come.
//
// All fields belong to the goroutine, but for wake, on which it is told that there may be a client for it.
type reader struct {
	pool *readers
	wire gwsConn
	// woken: the reader was told and has not looked yet.
	woken bool
	wake  chan struct{}

	// rest is what has been read into buf and not yet been parsed.
	buf, rest []byte
	frames    frameTracker
	// violation is why the connection is closed as soon as gws has read the bytes ahead of the violation.
	violation manager.CloseReason
	// drained: at the last look there was nothing more to read.
	drained bool

	// attempt is the method tryRead as a value, made once, which leaves its results in n and err. patient: it
	// is to wait until there is something.
	attempt func(fd uintptr) bool
	patient bool
	n       int
	err     error
}

func newReader(k *readers) *reader {
	r := &reader{pool: k, wake: make(chan struct{}, 1), buf: make([]byte, readBuffer)}
	r.attempt = r.tryRead
	return r
}

// run reads until the connection of a client has ended, which is the end of gws's connection too, or until the
// reader is not needed any more.
func (r *reader) run() {
	defer r.end()
	const least = 16 // what bufio insists on; what is read ahead stands in buf
	socket, err := r.pool.upgrader.UpgradeFromConn(&r.wire, bufio.NewReaderSize(r, least), readersHandshake)
	if err != nil {
		panic("server: gws refuses a handshake that it used to accept: " + err.Error())
	}
	r.wire.upgraded = true
	socket.ReadLoop()
}

// readersHandshake is a request that gws accepts. It answers it to nobody: clients have got their answer.
var readersHandshake = &http.Request{
	Method: http.MethodGet,
	Header: http.Header{
		"Connection":  {"Upgrade"},
		"Upgrade":     {"websocket"},
		headerVersion: {"13"},
		headerKey:     {"c2hvYWwgcmVhZGVycyBrZXk="},
	},
}

// end is the end of run. gws catches no panics of its own parser, and no bytes from a client may end the
// process.
func (r *reader) end() {
	c := r.wire.client
	if c == nil {
		return
	}
	if problem := recover(); problem != nil {
		c.panicked(problem)
	}
	c.end()
}

// gwsConn is the connection as a reader's gws writes to it. gws writes close frames only; they enter the outbox of the client
// that is being read from, in order with all other frames. The socket is closed when the outbox is done with it, not
// when gws is. gws reads from the reader instead. The embedded net.Conn is nil: gws does not call the missing methods.
type gwsConn struct {
	net.Conn
	client *Client
	// upgraded is true once gws has answered the handshake, into nowhere.
	upgraded bool
	// ended is true when the reader has reported the end of the client's bytes. gws would answer with 1000, which tells
	// the client to stop.
	ended bool
}

// Write queues a close frame.
func (w *gwsConn) Write(p []byte) (int, error) {
	const header, code = 2, 2
	if w.upgraded && !w.ended && w.client != nil && len(p) >= header && frame.Opcode(p[0]&0x0F) == frame.Close {
		payload := append([]byte(nil), p[header:]...)
		if text, ours := protocolErrors[closeCode(payload)]; ours {
			payload = append(payload[:code], text...)
		}
		w.client.out.Close(frame.New(frame.Close, frame.Control, payload))
	}
	return len(p), nil
}

// protocolErrors are the texts for the close codes with which gws ends a connection because of its bytes.
var protocolErrors = map[uint16]string{
	1002: "Protocol error",
	1003: "Unsupported data",
	1007: "Text is not valid UTF-8",
	1009: manager.MessageTooBig.Text,
}

// closeCode returns the code of a close frame's payload, 0 if it has none.
func closeCode(payload []byte) uint16 {
	if len(payload) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(payload)
}

// Close does nothing: the outbox closes the socket.
func (w *gwsConn) Close() error { return nil }

// SetDeadline does nothing: reads are bounded by the idle timeout.
func (w *gwsConn) SetDeadline(time.Time) error { return nil }

// Read returns bytes of the client. Between two messages it blocks until any client has sent something, and within a message
// until this one has sent more.
func (r *reader) Read(p []byte) (int, error) {
	if r.violation.Code != 0 {
		return 0, r.closeFor(r.violation)
	}
	for len(r.rest) == 0 {
		if r.wire.client == nil {
			if r.wire.client = r.pool.next(r); r.wire.client == nil {
				return 0, io.EOF
			}
			r.drained = false
		}
		if err := r.fill(); err != nil {
			r.wire.ended = true
			return 0, err
		}
	}
	n := min(len(p), len(r.rest))
	n, reason := r.frames.track(r.rest[:n], r.wire.client.maxMessage())
	if reason.Code == 0 && r.frames.fragments > 0 {
		if !r.wire.client.limiter.AllowN(time.Now(), r.frames.fragments) {
			reason = manager.TooManyMessages
		}
		r.frames.fragments = 0
	}
	if reason.Code != 0 && n == 0 {
		return 0, r.closeFor(reason)
	}
	r.violation = reason
	copy(p, r.rest[:n])
	r.rest = r.rest[n:]
	return n, nil
}

// closeFor closes the client's connection and ends gws's read loop.
func (r *reader) closeFor(reason manager.CloseReason) error {
	r.wire.client.Close(reason)
	r.wire.ended = true
	return io.EOF
}

// fill reads, or leaves the client if it is silent.
func (r *reader) fill() error {
	c := r.wire.client
	r.patient = !c.input.watched || !r.frames.atBoundary()
	if r.drained && !r.patient {
		if c.input.rest() {
			r.wire.client = nil
			return nil
		}
		r.drained = false
	}
	n, err := r.read(c)
	// Less than there was room for is all there was, but for the end of the stream: whatever comes later is an
	// event of its own.
	r.rest, r.drained = r.buf[:n], n == 0 || n < len(r.buf) && !c.input.ending.Load()
	return err
}

func (r *reader) read(c *Client) (int, error) {
	if c.input.raw == nil {
		return c.input.conn.Read(r.buf)
	}
	if err := c.input.raw.Read(r.attempt); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// tryRead returns false if there is nothing to read yet and the reader is to wait for it.
func (r *reader) tryRead(fd uintptr) bool {
	var silent bool
	r.n, silent, r.err = tryRead(fd, r.buf)
	return !silent || !r.patient
}

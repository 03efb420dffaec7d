package server

import (
	"bufio"
	"io"
	"net/http"
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
	wire wire
	// woken: the reader was told and has not looked yet.
	woken bool
	wake  chan struct{}

	// rest is what has been read into buf and not yet been parsed.
	buf, rest []byte
	frames    boundary
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
	if recover() != nil {
		c.panicked()
	}
	c.end()
}

// Read returns what the client has sent. Between two messages it blocks until there is something from any
// client, and within one until there is more from this one.
func (r *reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.wire.client == nil {
			if r.wire.client = r.pool.next(r); r.wire.client == nil {
				return 0, io.EOF
			}
			r.drained = false
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.frames.pass(r.rest[:n])
	r.rest = r.rest[n:]
	return n, nil
}

// fill reads, or leaves the client if it is silent.
func (r *reader) fill() error {
	c := r.wire.client
	r.patient = !c.input.watched || !r.frames.whole()
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

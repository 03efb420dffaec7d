package server

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/lxzan/gws"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
)

// readerPool runs the goroutines that read from clients and handle their messages. A client is queued when its socket
// is readable and leaves its reader when it has no more input, so an idle connection holds neither a stack nor a
// parser, and there are about as many readers as messages are being handled.
type readerPool struct {
	upgrader *gws.Upgrader

	mu    sync.Mutex // protects the fields below; readers are notified under it, which does not block
	queue []*Client  // clients whose sockets are readable, oldest first
	idle  []*reader
	// notifyPending is true while a notified reader has not checked the queue. One at a time is enough, because it
	// notifies the next one before it handles a message: few readers run while handling is fast, and as many as needed
	// where it blocks.
	notifyPending bool
	closed        bool
	// running waits for the goroutines to end.
	running sync.WaitGroup
}

// maxIdleReaders is how many idle goroutines are kept.
const maxIdleReaders = 64

// enqueue queues a client to be read from until it has no more input. It does not block.
func (k *readerPool) enqueue(c *Client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue = append(k.queue, c)
	k.notifyLocked()
}

// startDedicated starts a reader for a client, which parses the bytes in early first. It does not block.
func (k *readerPool) startDedicated(c *Client, early []byte) {
	r := newReader(k)
	r.conn.client, r.unparsed = c, early
	k.running.Go(r.run)
}

// notifyLocked notifies an idle reader, or starts one, if a client is queued; k.mu is held.
func (k *readerPool) notifyLocked() {
	if k.notifyPending || len(k.queue) == 0 {
		return
	}
	k.notifyPending = true
	if last := len(k.idle) - 1; last >= 0 {
		r := k.idle[last]
		k.idle = k.idle[:last]
		r.notify <- struct{}{} // buffered
		return
	}
	r := newReader(k)
	r.notified = true
	k.running.Go(r.run)
}

// next returns the client that was queued first. It blocks until there is one, and returns nil if the reader must end.
func (k *readerPool) next(r *reader) *Client {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		if r.notified {
			r.notified, k.notifyPending = false, false
		}
		if len(k.queue) > 0 {
			c := k.queue[0]
			k.queue[0] = nil // for the garbage collector
			k.queue = k.queue[1:]
			k.notifyLocked()
			return c
		}
		if k.closed || len(k.idle) >= maxIdleReaders {
			return nil
		}
		k.idle = append(k.idle, r)
		k.mu.Unlock()
		<-r.notify
		k.mu.Lock()
		r.notified = true
	}
}

// close ends the goroutines and waits for them. All connections must have ended.
func (k *readerPool) close() {
	k.mu.Lock()
	for _, r := range k.idle {
		r.notify <- struct{}{}
	}
	k.idle, k.closed = nil, true
	k.mu.Unlock()
	k.running.Wait()
}

// readBuffer is the size of a reader's buffer.
const readBuffer = 4 << 10

// reader is a goroutine with a gws connection that parses the input of one client after the other as a single stream.
// It changes clients only at a message boundary, when gws holds no bytes of either. A client that stops within a
// message keeps its reader until the rest arrives.
//
// All fields belong to the goroutine, except notify, which readerPool sends on.
type reader struct {
	pool *readerPool
	conn gwsConn
	// notified is true until the reader has checked the queue after a notification.
	notified bool
	notify   chan struct{}

	// unparsed is the part of buf that has been read and not passed to gws.
	buf, unparsed []byte
	frames        frameTracker
	// violation is why the connection is closed as soon as gws has read the bytes ahead of the violation.
	violation manager.CloseReason
	// drained is true if the last read has emptied the socket.
	drained bool

	// readFunc is the method value of tryRead, made once because each would allocate. It stores its results in n and err,
	// and waits for input if wait is true.
	readFunc func(fd uintptr) bool
	wait     bool
	n        int
	err      error
}

func newReader(k *readerPool) *reader {
	r := &reader{pool: k, notify: make(chan struct{}, 1), buf: make([]byte, readBuffer)}
	r.readFunc = r.tryRead
	return r
}

// run reads until the connection of a client ends, which ends the gws connection too, or until the pool needs no
// further reader.
func (r *reader) run() {
	defer r.end()
	const minBuffer = 16 // the minimum of bufio; reader.buf is the real buffer
	socket, err := r.pool.upgrader.UpgradeFromConn(&r.conn, bufio.NewReaderSize(r, minBuffer), placeholderHandshake)
	if err != nil {
		panic("server: gws rejects the placeholder handshake: " + err.Error())
	}
	r.conn.upgraded = true
	socket.ReadLoop()
}

// placeholderHandshake is a request that gws accepts. Its answer is discarded: upgrade has answered the client.
var placeholderHandshake = &http.Request{
	Method: http.MethodGet,
	Header: http.Header{
		"Connection":  {"Upgrade"},
		"Upgrade":     {"websocket"},
		headerVersion: {"13"},
		headerKey:     {"c2hvYWwgcmVhZGVycyBrZXk="},
	},
}

// end ends the connection of the current client. It recovers panics of gws's parser, so that no input ends the
// process.
func (r *reader) end() {
	c := r.conn.client
	if c == nil {
		return
	}
	if problem := recover(); problem != nil {
		c.panicked(problem)
	}
	c.end()
}

// gwsConn is the connection as a reader's gws writes to it. gws writes close frames only; they enter the outbox of the
// client that is being read from, in order with all other frames. The socket is closed when the outbox is done with
// it, not when gws is. gws reads from the reader instead. The embedded net.Conn is nil: gws does not call the missing
// methods.
type gwsConn struct {
	net.Conn
	client *Client
	// upgraded is true once gws has answered the placeholder handshake.
	upgraded bool
	// ended is true when the reader has returned an error to gws, which answers it with 1000: a code that tells clients
	// to stop.
	ended bool
	// closing is true once gws has written its close frame, and code the frame's, 0 if it has none.
	closing bool
	code    uint16
}

// Write notes the close frame of gws, which onClose queues: only there gws tells what the client has sent.
func (w *gwsConn) Write(p []byte) (int, error) {
	const header = 2
	if w.upgraded && !w.ended && w.client != nil && len(p) >= header && frame.Opcode(p[0]&0x0F) == frame.Close {
		w.closing, w.code = true, closeCode(p[header:])
	}
	return len(p), nil
}

// onClose queues the close frame of a connection that gws has ended: the answer to the client's close frame, which has
// its code (RFC 6455, 5.5.1), or the error of its bytes. gws answers most codes with 1000, and 1014, which was
// registered after it, with an error.
func (w *gwsConn) onClose(err error) {
	if !w.closing {
		return
	}
	received := new(gws.CloseError)
	isAnswer := errors.As(err, &received) && w.code != invalidPayload.Code
	switch {
	case isAnswer && received.Code == 0 && w.code == 0:
		w.client.out.Close(frame.New(frame.Close, frame.Control, nil))
	case isAnswer && received.Code != 0 && (manager.CloseReason{Code: received.Code}).Check() == nil:
		payload := binary.BigEndian.AppendUint16(nil, received.Code)
		w.client.out.Close(frame.New(frame.Close, frame.Control, payload))
	default:
		w.client.Close(manager.CloseReason{Code: w.code, Text: protocolErrors[w.code]})
	}
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

// Read returns bytes of the client. Between two messages it blocks until any client has sent something, and within a
// message until this one has sent more.
func (r *reader) Read(p []byte) (int, error) {
	if r.violation.Code != 0 {
		return 0, r.closeFor(r.violation)
	}
	for len(r.unparsed) == 0 {
		if r.conn.client == nil {
			if r.conn.client = r.pool.next(r); r.conn.client == nil {
				return 0, io.EOF
			}
			r.drained = false
		}
		if err := r.fill(); err != nil {
			r.conn.ended = true
			return 0, err
		}
	}
	n := min(len(p), len(r.unparsed))
	n, reason := r.frames.track(r.unparsed[:n], r.conn.client.maxMessage())
	if reason.Code == 0 && r.frames.fragments > 0 {
		if !r.conn.client.rate.allow(r.conn.client.server.clock(), r.frames.fragments) {
			reason = manager.TooManyMessages
		}
		r.frames.fragments = 0
	}
	if reason.Code != 0 && n == 0 {
		return 0, r.closeFor(reason)
	}
	r.violation = reason
	copy(p, r.unparsed[:n])
	r.unparsed = r.unparsed[n:]
	return n, nil
}

// closeFor closes the client's connection and ends gws's read loop.
func (r *reader) closeFor(reason manager.CloseReason) error {
	r.conn.client.Close(reason)
	r.conn.ended = true
	return io.EOF
}

// fill reads from the client, or parks it if it has no more input.
func (r *reader) fill() error {
	c := r.conn.client
	r.wait = !c.input.watched || !r.frames.atBoundary()
	if r.drained && !r.wait {
		if c.input.park() {
			r.conn.client = nil
			return nil
		}
		r.drained = false
	}
	n, err := r.read(c)
	// A read that does not fill the buffer has emptied the socket, and epoll reports later input. It does not report the
	// end of the stream again, so after a hang-up only a read of 0 bytes counts.
	// One read of a TLS connection returns one record at most, so only an empty one shows that there is no more input.
	r.unparsed, r.drained = r.buf[:n], n == 0 || n < len(r.buf) && c.input.below == nil && !c.input.hungUp.Load()
	return err
}

func (r *reader) read(c *Client) (int, error) {
	switch {
	case c.input.below != nil:
		return c.readTLS(r.buf, r.wait)
	case c.input.raw == nil:
		return c.conn().Read(r.buf)
	}
	if err := c.input.raw.Read(r.readFunc); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// tryRead reads without blocking. It returns false if there is no input and the reader must wait for some.
func (r *reader) tryRead(fd uintptr) bool {
	var empty bool
	r.n, empty, r.err = tryRead(fd, r.buf)
	return !empty || !r.wait
}

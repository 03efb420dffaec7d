package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// errReset is the error of both ends of a connection that was reset.
var errReset = errors.New("sim: connection reset by peer")

// maxCapacity is the largest number of bytes that one direction of a connection holds, like the buffers of the kernel.
const maxCapacity = 4 << 10

// stream is one direction of a connection: a bounded buffer that its reader empties in pieces. All methods may be
// called from any number of goroutines.
type stream struct {
	mu   sync.Mutex // protects the fields below; nothing blocks with it held but wake.Wait
	wake *sync.Cond
	buf  []byte
	// held: bytes arrive no longer, until release.
	held bool
	// ended: the writer has closed its side. gone: the reader has, or the connection was reset.
	ended, gone, reset bool
	pieces             *rand.Rand
	// capacity is the number of bytes that a write puts into the buffer before it waits for the reader.
	capacity int
	// readBy and writeBy are the deadlines; zero: none.
	readBy, writeBy time.Time
}

func newStream(seed uint64) *stream {
	s := &stream{pieces: rand.New(rand.NewPCG(seed, 3))} // reproducible on purpose
	s.capacity = maxCapacity >> s.pieces.IntN(5)
	s.wake = sync.NewCond(&s.mu)
	return s
}

// read returns some of the bytes that have arrived: sometimes a single one, mostly all.
func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.reset:
			return 0, errReset
		case s.gone:
			return 0, net.ErrClosed
		case passed(s.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(s.buf) > 0 && !s.held:
			n := min(len(p), len(s.buf))
			if s.pieces.IntN(8) == 0 {
				n = 1 + s.pieces.IntN(n)
			}
			n = copy(p[:n], s.buf)
			s.buf = append(s.buf[:0], s.buf[n:]...)
			s.wake.Broadcast()
			return n, nil
		case s.ended && !s.held:
			return 0, io.EOF
		}
		s.wake.Wait()
	}
}

// write blocks until all bytes are in the buffer, the deadline has passed or the connection has ended.
func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.reset || s.gone:
			return n, errReset
		case s.ended:
			return n, net.ErrClosed
		case passed(s.writeBy):
			return n, os.ErrDeadlineExceeded
		case len(p) == 0:
			return n, nil
		}
		if room := s.capacity - len(s.buf); room > 0 {
			k := min(room, len(p))
			s.buf = append(s.buf, p[:k]...)
			p, n = p[k:], n+k
			s.wake.Broadcast()
			continue
		}
		s.wake.Wait()
	}
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

// update changes the stream and wakes everybody who waits for it.
func (s *stream) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.wake.Broadcast()
}

// setDeadline sets one of the two deadlines.
func (s *stream) setDeadline(which *time.Time, t time.Time) {
	s.update(func() { *which = t })
	if left := time.Until(t); !t.IsZero() && left > 0 {
		time.AfterFunc(left, func() { s.update(func() {}) })
	}
}

// end is one end of a connection.
type end struct {
	in, out *stream
}

var _ net.Conn = (*end)(nil)

// connect returns the two ends of a new connection. The seed decides in which pieces its bytes arrive.
func connect(seed uint64) (client, server *end) {
	up, down := newStream(seed), newStream(seed+1)
	return &end{in: down, out: up}, &end{in: up, out: down}
}

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }

// Close closes both directions. As with TCP, unread input resets the other end.
func (e *end) Close() error {
	unread := false
	e.in.update(func() {
		unread = len(e.in.buf) > 0
		e.in.gone, e.in.buf = true, nil
	})
	e.out.update(func() {
		e.out.ended = true
		e.out.reset = e.out.reset || unread
	})
	return nil
}

// CloseWrite ends this side's direction only.
func (e *end) CloseWrite() error {
	e.out.update(func() { e.out.ended = true })
	return nil
}

// resetAll ends the connection at once, with the loss of everything that is under way.
func (e *end) resetAll() {
	for _, s := range []*stream{e.in, e.out} {
		s.update(func() { s.reset, s.buf = true, nil })
	}
}

// hold stops the bytes that come to this end, release lets them arrive again.
func (e *end) hold()    { e.in.update(func() { e.in.held = true }) }
func (e *end) release() { e.in.update(func() { e.in.held = false }) }

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.setDeadline(&e.in.readBy, t)
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.out.setDeadline(&e.out.writeBy, t)
	return nil
}

func (e *end) SetDeadline(t time.Time) error {
	return errors.Join(e.SetReadDeadline(t), e.SetWriteDeadline(t))
}

func (e *end) LocalAddr() net.Addr  { return address{} }
func (e *end) RemoteAddr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "sim" }
func (address) String() string  { return "sim" }

// listener accepts the connections of one node.
type listener struct {
	conns chan net.Conn
	ctx   context.Context // the listener's lifetime
	close context.CancelFunc
}

func newListener() *listener {
	l := &listener{conns: make(chan net.Conn)}
	l.ctx, l.close = context.WithCancel(context.Background())
	return l
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends the listener.
func (l *listener) Close() error {
	l.close()
	return nil
}

// Addr returns the address of every node.
func (l *listener) Addr() net.Addr { return address{} }

// offer hands over the server's end of a connection, unless the node has ended.
func (l *listener) offer(c net.Conn) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.ctx.Done():
		return false
	}
}

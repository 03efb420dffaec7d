package systems

import (
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a connection that is written to by number. One goroutine at a time may use it.
type socket struct {
	conn net.Conn
	fd   int   // -1: it is one over TLS, whose writes block
	part *part // that writes to it
	// rest are the bytes that the kernel has not accepted yet. As long as there are any, nothing else may be written.
	rest []byte
	// stuck: the client does not read, or has gone. It is left out from now on.
	stuck bool
}

func newSocket(conn net.Conn) (*socket, error) {
	s := &socket{conn: conn, fd: -1}
	if _, ok := conn.(*tls.Conn); ok {
		return s, nil
	}
	raw, err := conn.(*net.TCPConn).SyscallConn() // the listener is one of TCP
	if err != nil {
		return nil, err
	}
	err = raw.Control(func(fd uintptr) { s.fd = int(fd) })
	return s, err
}

// write writes one buffer by one system call and reports whether a remainder is left, for finish.
func (s *socket) write(wire []byte) bool {
	switch {
	case s.stuck:
		return false
	case len(s.rest) > 0:
		s.rest = append(s.rest, wire...)
		return false // it has been reported
	case s.fd < 0:
		s.rest = wire
		s.finish()
		return false
	}
	n, err := unix.Write(s.fd, wire)
	for err == unix.EINTR {
		n, err = unix.Write(s.fd, wire)
	}
	if n == len(wire) {
		return false
	}
	s.stuck = err != nil && err != unix.EAGAIN
	s.rest = slices.Clone(wire[max(n, 0):])
	return !s.stuck
}

// patience is how long the loop waits for a client that has no more room. It happens once to a client: one
// that still has none afterwards is left out.
const patience = 2 * time.Second

// finish writes the remainder as soon as there is room.
func (s *socket) finish() {
	_ = s.conn.SetWriteDeadline(time.Now().Add(patience)) // fails with the write
	_, err := s.conn.Write(s.rest)
	s.stuck, s.rest = err != nil, nil
}

// finish writes the remainders of sockets.
func finish(late []*socket) {
	var writing sync.WaitGroup
	for _, s := range late {
		writing.Go(s.finish)
	}
	writing.Wait()
}

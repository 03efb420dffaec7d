package systems

import (
	"crypto/tls"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a connection that is written to by number. One goroutine at a time may use it.
type socket struct {
	fd   int
	part *part // that writes to it
	// secured is the connection where it is one over TLS: it is written to with blocking writes.
	secured *tls.Conn
	// rest are the bytes that the kernel has not accepted yet. As long as there are any, nothing else may be written.
	rest []byte
	// stuck: the client does not read. It is left out from now on.
	stuck bool
}

func newSocket(conn net.Conn) (*socket, error) {
	if secured, ok := conn.(*tls.Conn); ok {
		return &socket{secured: secured}, nil
	}
	raw, err := conn.(*net.TCPConn).SyscallConn() // the listener is one of TCP
	if err != nil {
		return nil, err
	}
	s := &socket{}
	err = raw.Control(func(fd uintptr) { s.fd = int(fd) })
	return s, err
}

// write writes one buffer and reports whether the kernel accepted all of it. The remainder waits in rest.
func (s *socket) write(wire []byte) bool {
	if s.stuck {
		return true
	}
	if s.secured != nil {
		_ = s.secured.SetWriteDeadline(time.Now().Add(patience)) // fails with the write
		_, err := s.secured.Write(wire)
		s.stuck = err != nil
		return true
	}
	if len(s.rest) > 0 {
		s.rest = append(s.rest, wire...)
		return true // it has been reported
	}
	n, ok := s.attempt(wire)
	if ok && n < len(wire) {
		s.rest = slices.Clone(wire[n:])
		return false
	}
	return true
}

// attempt makes one system call. A socket that is broken is stuck.
func (s *socket) attempt(wire []byte) (n int, ok bool) {
	for {
		n, err := unix.Write(s.fd, wire)
		switch err {
		case nil:
			return n, true
		case unix.EAGAIN:
			return 0, true
		case unix.EINTR:
		default:
			s.stuck = true
			return 0, false
		}
	}
}

// patience is how long the loop waits for a client that has no more room. It happens once to a client: one
// that still has none afterwards is left out.
const patience = 2 * time.Second

// finish writes the remainders of sockets as soon as they have room.
func finish(late []*socket) {
	deadline := time.Now().Add(patience)
	for len(late) > 0 {
		left := time.Until(deadline)
		if left <= 0 || !await(late, left) {
			break
		}
		late = slices.DeleteFunc(late, func(s *socket) bool {
			n, _ := s.attempt(s.rest)
			s.rest = s.rest[n:]
			return s.stuck || len(s.rest) == 0
		})
	}
	for _, s := range late {
		s.stuck, s.rest = true, nil
	}
}

// await blocks until one of the sockets has room, and reports false if none has in time.
func await(late []*socket, most time.Duration) bool {
	polled := make([]unix.PollFd, len(late))
	for i, s := range late {
		polled[i] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLOUT} //nolint:gosec // numbers of files are small
	}
	for {
		n, err := unix.Poll(polled, int(most.Milliseconds())+1)
		if err != unix.EINTR {
			return err == nil && n > 0
		}
	}
}

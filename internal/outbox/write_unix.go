//go:build unix

package outbox

import (
	"errors"
	"net"
	"syscall"
)

// rawConn returns the connection's syscall.RawConn, or nil if it has no file descriptor.
func rawConn(conn net.Conn) syscall.RawConn {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil // already closed: the first blocking write returns the error
	}
	return raw
}

// tryWrite writes as many bytes as the socket accepts without blocking, possibly none. The descriptors of the net
// package are non-blocking.
func tryWrite(fd uintptr, buf []byte) (int, error) {
	for {
		n, err := write(fd, buf)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, nil
		default:
			return 0, err
		}
	}
}

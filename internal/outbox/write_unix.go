//go:build unix

package outbox

import (
	"errors"
	"net"
	"syscall"
)

// rawConn returns the access to the connection's file descriptor, or nil if it has none.
func rawConn(conn net.Conn) syscall.RawConn {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil // closed already: the first blocking write will say so
	}
	return raw
}

// tryWrite writes what the socket takes without waiting, which may be nothing. The descriptors of Go's
// connections do not block.
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

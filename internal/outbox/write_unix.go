//go:build unix

package outbox

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawConn returns the syscall.RawConn of a *net.TCPConn or *net.UnixConn, and nil for other types. A type that embeds
// one of them has its SyscallConn too, but possibly a Write method of its own, which must not be bypassed.
func rawConn(conn net.Conn) syscall.RawConn {
	var c syscall.Conn
	switch conn := conn.(type) {
	case *net.TCPConn:
		c = conn
	case *net.UnixConn:
		c = conn
	default:
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil // already closed: the first blocking write returns the error
	}
	return raw
}

// tryWrite writes as many bytes as the socket accepts without blocking, possibly none.
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

// writable reports whether the socket takes more bytes. If not, the kernel notifies the runtime's poller when it does,
// as after a refused write.
func writable(fd uintptr) bool {
	for {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}} //nolint:gosec // a descriptor is small
		n, err := unix.Poll(fds[:], 0)
		if !errors.Is(err, unix.EINTR) {
			return n != 0
		}
	}
}

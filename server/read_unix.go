//go:build unix

package server

import (
	"io"
	"os"
	"syscall"
)

// rawConn returns the access to the connection's file descriptor.
func rawConn(conn syscall.Conn) (syscall.RawConn, error) { return conn.SyscallConn() }

// tryWrite writes as many bytes as the socket takes without blocking, possibly none.
func tryWrite(fd uintptr, buf []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), buf)
		switch {
		case err == nil:
			return n, nil
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, nil
		default:
			return 0, os.NewSyscallError("write", err)
		}
	}
}

// tryRead reads without blocking; empty reports that there is no input. Descriptors of Go's connections are
// non-blocking.
func tryRead(fd uintptr, buf []byte) (n int, empty bool, err error) {
	for {
		n, err := syscall.Read(int(fd), buf)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, true, nil
		case err != nil:
			return 0, false, os.NewSyscallError("read", err)
		case n == 0:
			return 0, false, io.EOF
		default:
			return n, false, nil
		}
	}
}

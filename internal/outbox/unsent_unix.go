//go:build linux || darwin

package outbox

import (
	"net"
	"syscall"
)

// limitUnsent limits the bytes that the kernel holds for a connection and has not sent. Errors are ignored: without the
// limit, states reach a slow client later.
func limitUnsent(conn *net.TCPConn, n int) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, n) // a descriptor is small
	})
}

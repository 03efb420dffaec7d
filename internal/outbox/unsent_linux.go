package outbox

import (
	"net"
	"syscall"
)

// tcpNotSentLowat is TCP_NOTSENT_LOWAT of tcp(7).
const tcpNotSentLowat = 0x19

// maxUnsent is the number of unsent bytes from which on a socket in recovery refuses further ones.
const maxUnsent = 32 << 10

// limitUnsent limits the kernel's buffer of unsent bytes, or restores the system's setting. It has no effect on
// connections that do not use TCP. Errors are ignored: without the limit, live frames are delayed, not lost.
func limitUnsent(conn net.Conn, limited bool) {
	raw := rawConn(conn)
	for raw == nil {
		wrapper, ok := conn.(interface{ NetConn() net.Conn }) // *tls.Conn, for example
		if !ok {
			return
		}
		conn = wrapper.NetConn()
		raw = rawConn(conn)
	}
	n := 0
	if limited {
		n = maxUnsent
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, n)
	})
}

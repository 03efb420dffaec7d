package outbox

import (
	"net"
	"syscall"
	"testing"
)

// unsentLimit returns the limit that the kernel has for a connection.
func unsentLimit(t *testing.T, conn *net.TCPConn) (n int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			n, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat) //nolint:gosec // small
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The unsent bytes in the kernel are limited for each TCP connection, below TLS and other wrappers too.
func TestOutbox_LimitsUnsentBytes(t *testing.T) {
	for name, test := range map[string]struct {
		option, want int
		wrap         func(*net.TCPConn) net.Conn
	}{
		"default":  {0, 16 << 10, func(c *net.TCPConn) net.Conn { return c }},
		"smaller":  {5000, 5000, func(c *net.TCPConn) net.Conn { return c }},
		"none":     {-1, 0, func(c *net.TCPConn) net.Conn { return c }},
		"over TLS": {0, 16 << 10, func(c *net.TCPConn) net.Conn { secured, _ := overTLS(certificate(), c, c); return secured }},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewPool(Options{UnsentBytes: test.option})
			defer p.Close()
			server, client := tcpPair(t)
			defer func() { _ = client.Close() }()
			want := test.want
			if test.option < 0 {
				want = unsentLimit(t, server) // the system's
			}
			p.Open(test.wrap(server), Config{})
			if got := unsentLimit(t, server); got != want {
				t.Errorf("the kernel holds at most %d unsent bytes, want %d", got, want)
			}
		})
	}
}

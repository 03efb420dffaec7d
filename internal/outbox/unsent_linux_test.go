package outbox

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-go/shoal/internal/frame"
)

// unsentLimit returns the limit that the kernel has for a connection.
func unsentLimit(t *testing.T, conn *net.TCPConn) (n int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			n, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat)
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

// unsent returns the number of bytes of a connection that the kernel holds and has not sent yet.
func unsent(t *testing.T, conn *net.TCPConn) (n int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQNSD) // a descriptor is small
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ownDescriptor is a connection that does not lead to the one below it, but to its descriptor.
type ownDescriptor struct {
	net.Conn
	tcp *net.TCPConn
}

func (c ownDescriptor) SyscallConn() (syscall.RawConn, error) { return c.tcp.SyscallConn() }

// The kernel joins writes in a buffer without checking the limit for each: after a stall the outbox checks it.
func TestOutbox_LimitsUnsentBytesOfSlowClient(t *testing.T) {
	for name, wrap := range map[string]func(*net.TCPConn) net.Conn{
		"TCP":                     func(c *net.TCPConn) net.Conn { return c },
		"with its own descriptor": func(c *net.TCPConn) net.Conn { return ownDescriptor{c, c} },
	} {
		t.Run(name, func(t *testing.T) {
			server, client := tcpPair(t)
			defer func() { _ = client.Close() }()
			p := NewPool(roomy.withoutBurst())
			defer p.Close()
			p.LimitUnsent(server)
			o := p.Open(wrap(server), Config{Variant: frame.V1})
			mustRead(t, client, fill(t, p, o))
			idle, stalled := false, false
			for n := 0; !stalled; n++ {
				eventually(t, "the outbox is idle or stalled", func() bool {
					o.mu.Lock()
					defer o.mu.Unlock()
					idle, stalled = !o.owned, o.stalled && n > 0
					return idle || stalled
				})
				if n == slowChecks {
					t.Fatal("the socket takes everything")
				}
				if idle {
					send(t, o, Queued, data("a", frame.Event, n, 8000))
				}
			}
			const most = 16<<10/2 + 8100 // half of the limit and one frame
			if got := unsent(t, server); got > most {
				t.Errorf("the kernel holds %d unsent bytes, want at most %d", got, most)
			}
		})
	}
}

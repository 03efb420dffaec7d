package outbox

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

// tcpSend and tcpReceive are the sizes of the buffers of tcpPair, in bytes.
const (
	tcpSend    = 64 << 10
	tcpReceive = 256 << 10
)

// tcpPair returns the two ends of a loopback connection with buffers small enough to stall early.
func tcpPair(t testing.TB) (server, client *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server, client = s.(*net.TCPConn), c.(*net.TCPConn)
	if err := errors.Join(server.SetWriteBuffer(tcpSend), client.SetReadBuffer(tcpReceive)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return server, client
}

// A nullConn is written to like a socket, by system calls on its descriptor, and takes everything.
type nullConn struct {
	net.Conn // nil: nothing but writing is done
	file     *os.File
}

func (c nullConn) SyscallConn() (syscall.RawConn, error) { return c.file.SyscallConn() }
func (c nullConn) Close() error                          { return c.file.Close() }

func newNullConn(t testing.TB) nullConn {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return nullConn{file: f}
}

// openRaw opens a connection that is written to through its descriptor although its type is not one of package net.
func openRaw(p *Pool, conn interface {
	net.Conn
	syscall.Conn
}, cfg Config) *Outbox {
	cfg.Raw, _ = conn.SyscallConn()
	return p.Open(conn, cfg)
}

// A tracedConn takes everything. It calls trace at each write.
type tracedConn struct {
	nullConn
	trace func()
}

func (c tracedConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.nullConn.SyscallConn()
	return tracedRaw{raw, c.trace}, err
}

type tracedRaw struct {
	syscall.RawConn
	trace func()
}

func (r tracedRaw) Control(f func(fd uintptr)) error {
	r.trace()
	return r.RawConn.Control(f)
}

// A hostileConn panics in Write.
type hostileConn struct{ net.Conn }

func (hostileConn) Write([]byte) (int, error) { panic("a bug in somebody's connection") }

package server

import (
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// descriptor is the socket of a connection that has been taken out of package net, whose own objects and their entry in
// the runtime's poller take about 900 bytes. Like a net.Conn it may be closed while it is used; to wait for the
// socket it uses the server's poller, in which the client must be registered.
//
// Deadlines are not supported: the server's timers close the connection instead.
type descriptor struct {
	client *Client
	fd     int32
	// uses is the number of system calls that are using fd, plus descriptorClosed once the descriptor is closed. The last
	// of them closes fd: its number may belong to another file from then on.
	uses atomic.Int32
	// waits is nil until a goroutine waits for the socket.
	waits atomic.Pointer[descriptorWaits]
	// address and port are the peer's, without a zone; port is 0 for Unix sockets.
	address [16]byte
	port    uint16
}

const descriptorClosed = 1 << 30

// descriptorWaits are signals that the socket may be ready. Each channel holds one, so that a goroutine that is about
// to wait misses none; one goroutine at a time waits for each.
type descriptorWaits struct{ input, output chan struct{} }

// detach takes the socket of a client out of conn, a *net.TCPConn or *net.UnixConn, and closes conn. It returns conn as
// it is if the system gives no further descriptor, and if the peer's address has a zone, which a descriptor does not
// keep.
func detach(c *Client, conn net.Conn) net.Conn {
	raw, err := rawConn(syscallConn(conn))
	if err != nil {
		return conn
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		c.server.writers.LimitUnsent(tcp)
	}
	d := &descriptor{client: c}
	if addr, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		if addr.Zone != "" {
			return conn
		}
		d.address, d.port = addr.AddrPort().Addr().As16(), uint16(addr.Port) //nolint:gosec // ports have 16 bits
	}
	failed := raw.Control(func(fd uintptr) {
		var dup int
		dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		d.fd = int32(dup) //nolint:gosec // descriptors have 32 bits
	})
	if failed != nil || err != nil {
		return conn
	}
	_ = conn.Close() // the socket stays open
	return d
}

// descriptor returns the client's socket if it was taken out of package net, else nil.
func (c *Client) descriptor() *descriptor {
	conn := c.socket.Conn
	if below := c.input.below; below != nil {
		conn = below.Conn
	}
	d, _ := conn.(*descriptor)
	return d
}

// acquire reserves fd for a system call, after which release must be called.
func (d *descriptor) acquire() error {
	for {
		uses := d.uses.Load()
		if uses&descriptorClosed != 0 {
			return net.ErrClosed
		}
		if d.uses.CompareAndSwap(uses, uses+1) {
			return nil
		}
	}
}

func (d *descriptor) release() {
	if d.uses.Add(-1) == descriptorClosed {
		_ = unix.Close(int(d.fd))
	}
}

// Close closes the socket and ends all waiting. It does not block.
func (d *descriptor) Close() error {
	if err := d.acquire(); err != nil {
		return err
	}
	closed := d.uses.Or(descriptorClosed)&descriptorClosed == 0
	d.release()
	if !closed {
		return net.ErrClosed
	}
	d.wake(unix.EPOLLIN | unix.EPOLLOUT)
	return nil
}

// CloseWrite closes this side of the connection.
func (d *descriptor) CloseWrite() error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.release()
	return os.NewSyscallError("shutdown", unix.Shutdown(int(d.fd), unix.SHUT_WR))
}

// wake signals what epoll reports for the socket. It does not block.
func (d *descriptor) wake(events uint32) {
	waits := d.waits.Load()
	if waits == nil {
		return
	}
	if events != unix.EPOLLOUT {
		signal(waits.input)
	}
	if events&^(unix.EPOLLIN|unix.EPOLLRDHUP) != 0 {
		signal(waits.output)
	}
}

func signal(ready chan struct{}) {
	select {
	case ready <- struct{}{}:
	default:
	}
}

// try runs attempt once and reports whether it was successful.
func (d *descriptor) try(attempt func(fd uintptr) bool) (bool, error) {
	if err := d.acquire(); err != nil {
		return false, err
	}
	defer d.release()
	return attempt(uintptr(d.fd)), nil //nolint:gosec // descriptors are not negative
}

// until runs attempt until it is successful, each time that the socket may have become ready for the event, EPOLLIN or
// EPOLLOUT. It blocks until then or until the descriptor is closed.
func (d *descriptor) until(attempt func(fd uintptr) bool, event uint32) error {
	done, err := d.try(attempt)
	if done || err != nil {
		return err
	}
	ready := d.watch(event)
	for {
		if done, err = d.try(attempt); done {
			return nil
		}
		if err != nil {
			signal(ready) // for a further goroutine that waits
			return err
		}
		<-ready
	}
}

// watch returns the channel that gets the signals for an event.
func (d *descriptor) watch(event uint32) chan struct{} {
	waits := d.waits.Load()
	if waits == nil {
		d.waits.CompareAndSwap(nil, &descriptorWaits{make(chan struct{}, 1), make(chan struct{}, 1)})
		waits = d.waits.Load()
	}
	d.client.server.poller.watch(d.client, (*rawDescriptor)(d), event)
	if event == unix.EPOLLIN {
		return waits.input
	}
	return waits.output
}

// Read reads from the socket. It blocks until there is input.
func (d *descriptor) Read(p []byte) (n int, err error) {
	closed := d.until(func(fd uintptr) bool {
		var empty bool
		n, empty, err = tryRead(fd, p)
		return !empty
	}, unix.EPOLLIN)
	if closed != nil {
		err = closed
	}
	return n, err
}

// Write writes to the socket. It blocks until the socket has taken all bytes.
func (d *descriptor) Write(p []byte) (written int, err error) {
	closed := d.until(func(fd uintptr) bool {
		var n int
		n, err = tryWrite(fd, p[written:])
		written += n
		return err != nil || written == len(p)
	}, unix.EPOLLOUT)
	if closed != nil {
		err = closed
	}
	return written, err
}

// RemoteAddr returns the address of the peer.
func (d *descriptor) RemoteAddr() net.Addr {
	if d.port == 0 {
		return &net.UnixAddr{Name: "@", Net: "unix"} // clients have no name
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(d.address).Unmap(), d.port))
}

// LocalAddr returns no address: the server asks for none.
func (d *descriptor) LocalAddr() net.Addr { return &net.TCPAddr{} }

// SetDeadline is not supported, like the two that follow.
func (*descriptor) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (*descriptor) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (*descriptor) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// SyscallConn gives access to the file descriptor.
func (d *descriptor) SyscallConn() (syscall.RawConn, error) { return (*rawDescriptor)(d), nil }

// rawDescriptor is a descriptor as a [syscall.RawConn].
type rawDescriptor descriptor

// Control runs f with the file descriptor.
func (r *rawDescriptor) Control(f func(fd uintptr)) error {
	d := (*descriptor)(r)
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.release()
	f(uintptr(d.fd)) //nolint:gosec // descriptors are not negative
	return nil
}

// Read runs f each time that there may be input, until it returns true.
func (r *rawDescriptor) Read(f func(fd uintptr) bool) error {
	return (*descriptor)(r).until(f, unix.EPOLLIN)
}

// Write runs f each time that the socket may take bytes, until it returns true.
func (r *rawDescriptor) Write(f func(fd uintptr) bool) error {
	return (*descriptor)(r).until(f, unix.EPOLLOUT)
}

package load

import (
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// pollers is the engine of Linux: client i belongs to poller i modulo their number.
type pollers struct {
	all     []*poller
	running sync.WaitGroup
}

func newPollers(f *Fleet, addr *net.TCPAddr) (*pollers, error) {
	e := &pollers{}
	sockets := make([]socket, f.opt.Connections)
	for range f.opt.Pollers {
		t, err := newTarget(&f.opt, addr)
		if err == nil {
			err = e.start(t, sockets)
		}
		if err != nil {
			e.close()
			return nil, fmt.Errorf("load: making a poller: %w", err)
		}
	}
	return e, nil
}

func (e *pollers) start(t *target, sockets []socket) error {
	p, err := newPoller(t, sockets)
	if err != nil {
		return err
	}
	e.all = append(e.all, p)
	e.running.Go(p.run)
	return nil
}

func (e *pollers) dial(c *client) { e.all[c.index%len(e.all)].dial(c) }

func (e *pollers) close() {
	for _, p := range e.all {
		p.stop()
	}
	e.running.Wait()
}

// target is where sockets connect to, and from. Each poller has its own: using an address writes to it.
type target struct {
	text string
	to   unix.Sockaddr
	from []unix.Sockaddr
}

func newTarget(o *Options, addr *net.TCPAddr) (*target, error) {
	to, err := sockaddr(addr.IP, addr.Port, addr.Zone)
	if err != nil {
		return nil, err
	}
	t := &target{text: o.Addr, to: to}
	for _, address := range o.LocalAddrs {
		from, err := sockaddr(net.ParseIP(address), 0, "")
		if err != nil {
			return nil, err
		}
		t.from = append(t.from, from)
	}
	return t, nil
}

// open returns a socket that does not block and is connecting, or is connected already, for client i.
func (t *target) open(i int) (fd int, connected bool, err error) {
	family := unix.AF_INET
	if _, ok := t.to.(*unix.SockaddrInet6); ok {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, false, connectError(err, t.text)
	}
	connected, err = t.connect(fd, i)
	if err != nil {
		_ = unix.Close(fd)
		return -1, false, connectError(err, t.text)
	}
	return fd, connected, nil
}

func (t *target) connect(fd, i int) (connected bool, err error) {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return false, err
	}
	if len(t.from) > 0 {
		// Without this, bind would take a port that no other connection has, whatever its other end.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return false, err
		}
		if err := unix.Bind(fd, t.from[i%len(t.from)]); err != nil {
			return false, fmt.Errorf("cannot connect from the local address: %w", err)
		}
	}
	switch err := unix.Connect(fd, t.to); err {
	case nil:
		return true, nil
	case unix.EINPROGRESS, unix.EINTR:
		return false, nil
	default:
		return false, err
	}
}

func sockaddr(ip net.IP, port int, zone string) (unix.Sockaddr, error) {
	if v4 := ip.To4(); v4 != nil {
		return &unix.SockaddrInet4{Port: port, Addr: [4]byte(v4)}, nil
	}
	s := &unix.SockaddrInet6{Port: port, Addr: [16]byte(ip.To16())}
	if zone != "" {
		link, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, err
		}
		s.ZoneId = uint32(link.Index) //nolint:gosec // the system counts from 1
	}
	return s, nil
}

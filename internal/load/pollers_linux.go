package load

import (
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// pollerEngine is the engine on Linux: client i belongs to poller i modulo their number.
type pollerEngine struct {
	all     []*poller
	running sync.WaitGroup
}

func newPollers(f *Fleet, addr *net.TCPAddr) (*pollerEngine, error) {
	e := &pollerEngine{}
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

func (e *pollerEngine) start(t *target, sockets []socket) error {
	p, err := newPoller(t, sockets)
	if err != nil {
		return err
	}
	e.all = append(e.all, p)
	e.running.Go(p.run)
	return nil
}

func (e *pollerEngine) dial(c *client) { e.all[c.index%len(e.all)].dial(c) }

func (e *pollerEngine) close() {
	for _, p := range e.all {
		p.stop()
	}
	e.running.Wait()
}

// target holds the remote and local addresses of sockets. Each poller has its own, because the use of an address
// writes to it.
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

// open returns a non-blocking socket for client i that is connected or connecting.
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
		// Without this option, bind would take a port that no other connection uses, even to other addresses.
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
		s.ZoneId = uint32(link.Index) //nolint:gosec // interface indexes start at 1
	}
	return s, nil
}

package load

import (
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pollBuffer is what a poller reads into: with many messages waiting, one read takes them all.
	pollBuffer = 256 << 10
	// maxEvents is how many sockets a poller learns of at once.
	maxEvents = 512
	// maxDials is how many sockets a poller opens before it looks at those it has.
	maxDials = 32
	// maxUnsent bounds what waits to be sent on a connection.
	maxUnsent = 256 << 10
	// wakeMark stands in an event for the descriptor that wakes a poller.
	wakeMark = -1
)

// poller carries clients on one goroutine, the one of run. Other goroutines may call dial and stop.
type poller struct {
	target *target
	// sockets has a place for every client of the fleet. A poller uses those of its own clients.
	sockets     []socket
	mine        []*socket
	epoll, wake int
	buffer      []byte

	mu       sync.Mutex // protects what follows; under it the poller is woken, which does not block
	dials    []*client
	stopping bool
}

// socket is the connection of a client of a poller.
type socket struct {
	poller *poller
	client *client
	fd     int
	unsent []byte
}

func newPoller(t *target, sockets []socket) (p *poller, err error) {
	p = &poller{target: t, sockets: sockets, epoll: -1, wake: -1, buffer: make([]byte, pollBuffer)}
	defer func() {
		if err != nil {
			p.release()
		}
	}()
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, err
	}
	return p, unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, p.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeMark})
}

func (p *poller) release() {
	for _, fd := range []int{p.epoll, p.wake} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func (p *poller) dial(c *client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dials = append(p.dials, c)
	if len(p.dials) == 1 {
		p.wakeLocked()
	}
}

// stop makes run end. It must not be called twice.
func (p *poller) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopping = true
	p.wakeLocked()
}

func (p *poller) wakeLocked() {
	one := [8]byte{1} // a number other than 0, whatever the order of bytes
	_, _ = unix.Write(p.wake, one[:])
}

// run carries the clients until stop is called, and then closes everything.
func (p *poller) run() {
	defer p.end()
	events := make([]unix.EpollEvent, maxEvents)
	for {
		wait, stopping := p.openNew()
		if stopping {
			return
		}
		n, err := unix.EpollWait(p.epoll, events, wait)
		if err != nil && err != unix.EINTR {
			panic("epoll_wait on an epoll instance of our own: " + err.Error())
		}
		for _, event := range events[:max(n, 0)] {
			if event.Fd == wakeMark {
				var count [8]byte
				_, _ = unix.Read(p.wake, count[:])
				continue
			}
			p.sockets[event.Fd].handle(event.Events)
		}
	}
}

// openNew opens sockets for clients that have been handed over, a few at a time. It returns how long to wait
// for events: not at all if more clients are waiting.
func (p *poller) openNew() (wait int, stopping bool) {
	p.mu.Lock()
	n := min(len(p.dials), maxDials)
	batch := p.dials[:n]
	p.dials = p.dials[n:]
	wait, stopping = -1, p.stopping
	if len(p.dials) > 0 {
		wait = 0
	}
	p.mu.Unlock()
	if stopping {
		return 0, true
	}
	for _, c := range batch {
		p.open(c)
	}
	return wait, false
}

func (p *poller) open(c *client) {
	fd, connected, err := p.target.open(c.index)
	if err != nil {
		c.over(err)
		return
	}
	s := &p.sockets[c.index]
	*s = socket{poller: p, client: c, fd: fd}
	p.mine = append(p.mine, s)
	events := uint32(unix.EPOLLOUT)
	if connected {
		events = unix.EPOLLIN
	}
	err = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, s.event(events))
	if err == nil && connected {
		err = c.connected(s)
	}
	if err != nil {
		s.end(err)
	}
}

// end closes what is open.
func (p *poller) end() {
	for _, s := range p.mine {
		if s.fd >= 0 {
			s.client.leave()
			_ = unix.Close(s.fd)
		}
	}
	p.release()
}

func (s *socket) event(events uint32) *unix.EpollEvent {
	return &unix.EpollEvent{Events: events, Fd: int32(s.client.index)} //nolint:gosec // far below the bound
}

// await asks for other events than before.
func (s *socket) await(events uint32) error {
	return unix.EpollCtl(s.poller.epoll, unix.EPOLL_CTL_MOD, s.fd, s.event(events))
}

// end closes the socket after an error.
func (s *socket) end(err error) {
	_ = unix.Close(s.fd) // which takes it out of the epoll instance, too
	s.fd = -1
	s.client.over(err)
}

// handle does what the events of a socket ask for.
func (s *socket) handle(events uint32) {
	var err error
	switch {
	case s.client.phase == connecting:
		err = s.connected()
	case events&unix.EPOLLOUT != 0:
		err = s.flush()
	}
	if err == nil && events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		err = s.read()
	}
	if err != nil {
		s.end(err)
	}
}

// connected is called when connecting has come to an end.
func (s *socket) connected() error {
	code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err != nil {
		return connectError(err, s.poller.target.text)
	}
	if err := s.await(unix.EPOLLIN); err != nil {
		return err
	}
	return s.client.connected(s)
}

// read reads once: what is left is told of by the next event.
func (s *socket) read() error {
	n, err := unix.Read(s.fd, s.poller.buffer)
	now := time.Now()
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case err != nil:
		return err
	case n == 0:
		return io.EOF
	}
	if err := s.client.receive(s.poller.buffer[:n], now); err != nil {
		return err
	}
	if s.client.phase == stalled {
		return unix.EpollCtl(s.poller.epoll, unix.EPOLL_CTL_DEL, s.fd, nil)
	}
	return nil
}

// write is that of line.
func (s *socket) write(data []byte) error {
	if len(s.unsent) == 0 {
		n, err := send(s.fd, data)
		if err != nil || n == len(data) {
			return err
		}
		data = data[n:]
		if err := s.await(unix.EPOLLIN | unix.EPOLLOUT); err != nil {
			return err
		}
	}
	if len(s.unsent)+len(data) > maxUnsent {
		return fmt.Errorf("the server does not take what the client sends: %d bytes are waiting", len(s.unsent))
	}
	s.unsent = append(s.unsent, data...)
	return nil
}

// flush sends what is waiting.
func (s *socket) flush() error {
	n, err := send(s.fd, s.unsent)
	s.unsent = s.unsent[n:]
	if err != nil || len(s.unsent) > 0 {
		return err
	}
	s.unsent = nil
	return s.await(unix.EPOLLIN)
}

// send sends what the socket takes without waiting, which may be nothing.
func send(fd int, data []byte) (int, error) {
	for {
		n, err := unix.SendmsgN(fd, data, nil, nil, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			return n, nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		default:
			return 0, err
		}
	}
}

package load

import (
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pollBuffer is the size of a poller's read buffer: one read takes many queued messages.
	pollBuffer = 256 << 10
	// maxEvents is the number of events per epoll_wait.
	maxEvents = 512
	// maxDials is the number of sockets that a poller opens before it handles events.
	maxDials = 32
	// maxUnsent limits the unsent bytes of a connection.
	maxUnsent = 256 << 10
	// wakeMark identifies the eventfd that wakes a poller in an event.
	wakeMark = -1
)

// poller does the I/O of clients on the goroutine of run. Other goroutines may call dial and stop.
type poller struct {
	target *target
	// sockets has an element for each client of the fleet. A poller uses those of its own clients.
	sockets     []socket
	opened      []*socket
	epoll, wake int
	buffer      []byte

	mu       sync.Mutex // protects the fields below; the poller is woken while it is held, which does not block
	dials    []*client
	stopping bool
}

// socket is the connection of a client.
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

// stop ends run. It must be called once.
func (p *poller) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopping = true
	p.wakeLocked()
}

func (p *poller) wakeLocked() {
	one := [8]byte{1} // not 0 in any byte order
	_, _ = unix.Write(p.wake, one[:])
}

// run handles events until stop is called, and then closes everything.
func (p *poller) run() {
	defer p.closeAll()
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

// openNew opens sockets for dialled clients, a few at a time. It returns the timeout for epoll_wait: 0 if more
// clients have been dialled.
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
		c.connectionEnded(err)
		return
	}
	s := &p.sockets[c.index]
	*s = socket{poller: p, client: c, fd: fd}
	p.opened = append(p.opened, s)
	events := uint32(unix.EPOLLOUT)
	if connected {
		events = unix.EPOLLIN
	}
	err = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, s.event(events))
	if err == nil && connected {
		err = c.startUpgrade(s)
	}
	if err != nil {
		s.closeWithError(err)
	}
}

// closeAll closes the open sockets and the epoll instance.
func (p *poller) closeAll() {
	for _, s := range p.opened {
		if s.fd >= 0 {
			s.client.sendClose()
			_ = unix.Close(s.fd)
		}
	}
	p.release()
}

func (s *socket) event(events uint32) *unix.EpollEvent {
	return &unix.EpollEvent{Events: events, Fd: int32(s.client.index)} //nolint:gosec // far below the bound
}

// setEvents changes the events that epoll reports.
func (s *socket) setEvents(events uint32) error {
	return unix.EpollCtl(s.poller.epoll, unix.EPOLL_CTL_MOD, s.fd, s.event(events))
}

// closeWithError closes the socket after an error.
func (s *socket) closeWithError(err error) {
	_ = unix.Close(s.fd) // this also removes it from the epoll instance
	s.fd = -1
	s.client.connectionEnded(err)
}

// handle handles the events of a socket.
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
		s.closeWithError(err)
	}
}

// connected is called when connect has completed or failed.
func (s *socket) connected() error {
	code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err != nil {
		return connectError(err, s.poller.target.text)
	}
	if err := s.setEvents(unix.EPOLLIN); err != nil {
		return err
	}
	return s.client.startUpgrade(s)
}

// read reads once. If more bytes are available, epoll reports them again.
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

// write implements transport.
func (s *socket) write(data []byte) error {
	if len(s.unsent) == 0 {
		n, err := send(s.fd, data)
		if err != nil || n == len(data) {
			return err
		}
		data = data[n:]
		if err := s.setEvents(unix.EPOLLIN | unix.EPOLLOUT); err != nil {
			return err
		}
	}
	if len(s.unsent)+len(data) > maxUnsent {
		return fmt.Errorf("the server does not read: %d bytes are unsent", len(s.unsent))
	}
	s.unsent = append(s.unsent, data...)
	return nil
}

// flush sends the unsent bytes.
func (s *socket) flush() error {
	n, err := send(s.fd, s.unsent)
	s.unsent = s.unsent[n:]
	if err != nil || len(s.unsent) > 0 {
		return err
	}
	s.unsent = nil
	return s.setEvents(unix.EPOLLIN)
}

// send sends as many bytes as the socket accepts without blocking, possibly none.
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

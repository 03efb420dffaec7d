package server

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxPollEvents is the number of events that one call of epoll_wait returns at most.
const maxPollEvents = 256

// poller queues clients for a reader when their sockets become readable. It uses an epoll instance of its own because
// the runtime's needs one blocked goroutine per connection, whose stack takes more memory than the rest of a
// connection. Its methods may be called from any number of goroutines; only close blocks.
type poller struct {
	mu sync.Mutex // protects the fields below; nothing that blocks is called under it
	// epoll is created with the first client. The runtime's poller waits for it like for any file.
	epoll *os.File
	fd    int
	// slots holds the clients by the number in their events, free the empty slots.
	slots  []pollSlot
	free   []int32
	closed bool
	// controlFunc is the method value of watchSocket, made once because each would allocate. Its argument is event, its
	// result watchErr.
	controlFunc func(fd uintptr)
	event       unix.EpollEvent
	watchErr    error
	// running waits for the goroutine to end.
	running sync.WaitGroup
}

// pollSlot is the client of a slot. Each use of the slot has a number of its own, which is part of the events: an event
// of a connection that has ended must not end the contexts of the next client in its slot.
type pollSlot struct {
	client *Client
	use    int32
}

// add registers a client's socket for input, and watchHangUp for the end of its stream only. They report false if the
// system refuses.
func (p *poller) add(c *Client, raw syscall.RawConn) bool {
	return p.register(c, raw, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET)
}

func (p *poller) watchHangUp(c *Client, raw syscall.RawConn) bool {
	return p.register(c, raw, unix.EPOLLRDHUP|unix.EPOLLET)
}

func (p *poller) register(c *Client, raw syscall.RawConn, events uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.start() {
		return false
	}
	if last := len(p.free) - 1; last >= 0 {
		c.input.pollSlot, p.free = p.free[last], p.free[:last]
	} else {
		c.input.pollSlot = int32(len(p.slots)) //nolint:gosec // fewer than there are descriptors
		p.slots = append(p.slots, pollSlot{})
	}
	slot := &p.slots[c.input.pollSlot]
	slot.client = c
	slot.use++
	p.event = unix.EpollEvent{Events: events, Fd: c.input.pollSlot, Pad: slot.use}
	if err := raw.Control(p.controlFunc); err != nil || p.watchErr != nil {
		p.freeSlot(c)
		return false
	}
	return true
}

func (p *poller) watchSocket(fd uintptr) {
	p.watchErr = unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, int(fd), &p.event)
}

// remove frees the client's slot. The kernel has removed the socket when it was closed.
func (p *poller) remove(c *Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freeSlot(c)
}

func (p *poller) freeSlot(c *Client) {
	p.slots[c.input.pollSlot].client = nil
	p.free = append(p.free, c.input.pollSlot)
}

// start creates the epoll instance and the goroutine for the first client; p.mu is held.
func (p *poller) start() bool {
	if p.epoll != nil {
		return true
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return false
	}
	if err := unix.SetNonblock(fd, true); err != nil { // the runtime's poller requires it
		_ = unix.Close(fd)
		return false
	}
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return false
	}
	p.epoll, p.fd, p.controlFunc = file, fd, p.watchSocket
	p.running.Go(func() { p.run(raw) })
	return true
}

// run waits for events until the poller is closed.
func (p *poller) run(raw syscall.RawConn) {
	events := make([]unix.EpollEvent, maxPollEvents)
	clients := make([]*Client, 0, maxPollEvents)
	var n int
	poll := func(fd uintptr) bool {
		n, _ = unix.EpollWait(int(fd), events, 0) // fails only if interrupted
		return n != 0
	}
	for raw.Read(poll) == nil {
		clients = p.clientsOf(clients, events[:max(n, 0)])
		for _, c := range clients {
			c.readable()
		}
		clear(clients) // for the garbage collector
	}
}

// clientsOf appends the clients of the events to clients[:0].
func (p *poller) clientsOf(clients []*Client, events []unix.EpollEvent) []*Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	clients = clients[:0]
	for _, event := range events {
		slot := p.slots[event.Fd]
		c := slot.client
		if c == nil || slot.use != event.Pad {
			continue
		}
		if event.Events != unix.EPOLLIN {
			c.hangUp()
		}
		clients = append(clients, c)
	}
	return clients
}

// close ends the goroutine and waits for it. All connections must have ended.
func (p *poller) close() {
	p.mu.Lock()
	if p.epoll != nil && !p.closed {
		_ = p.epoll.Close()
	}
	p.closed = true
	p.mu.Unlock()
	p.running.Wait()
}

// sinceAcknowledged returns the time since the client's system has last acknowledged data, which each comment of the
// keep-alive asks for. It is 0 for a connection that is not TCP or has no descriptor of its own.
func (c *Client) sinceAcknowledged() (silent time.Duration) {
	raw := c.input.raw
	if raw == nil && c.socket.raw != nil { // TLS
		raw, _ = rawConn(c.socket.raw)
	}
	if raw == nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { silent = lastAcknowledgement(int(fd)) })
	return silent
}

func lastAcknowledgement(fd int) time.Duration {
	info, err := unix.GetsockoptTCPInfo(fd, syscall.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return time.Duration(info.Last_ack_recv) * time.Millisecond
}

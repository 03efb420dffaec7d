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
	// controlFunc is the method value of watchSocket, made once because each would allocate. Its arguments are operation
	// and event, its result watchErr.
	controlFunc func(fd uintptr)
	operation   int // EPOLL_CTL_ADD or EPOLL_CTL_MOD
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
// system refuses; a descriptor, which could then not be waited for, is closed.
func (p *poller) add(c *Client, raw syscall.RawConn) bool {
	return p.register(c, raw, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET)
}

func (p *poller) watchHangUp(c *Client, raw syscall.RawConn) bool {
	return p.register(c, raw, unix.EPOLLRDHUP|unix.EPOLLET)
}

func (p *poller) register(c *Client, raw syscall.RawConn, events uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.input.registered = p.registerLocked(c, raw, events)
	if d := c.descriptor(); d != nil && !c.input.registered {
		_ = d.Close()
	}
	return c.input.registered
}

func (p *poller) registerLocked(c *Client, raw syscall.RawConn, events uint32) bool {
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
	c.input.events |= events
	if !p.control(unix.EPOLL_CTL_ADD, c, raw) {
		p.freeSlot(c)
		return false
	}
	return true
}

// watch adds an event to those that the client's socket is registered for, now or later. If the socket is ready for the
// event already, it is reported. It does not block.
func (p *poller) watch(c *Client, raw syscall.RawConn, event uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.input.events&event != 0 {
		return
	}
	c.input.events |= event
	if c.input.registered {
		p.control(unix.EPOLL_CTL_MOD, c, raw)
	}
}

// control calls epoll_ctl for the client's socket; p.mu is held.
func (p *poller) control(operation int, c *Client, raw syscall.RawConn) bool {
	slot := c.input.pollSlot
	p.operation, p.event = operation, unix.EpollEvent{Events: c.input.events, Fd: slot, Pad: p.slots[slot].use}
	return raw.Control(p.controlFunc) == nil && p.watchErr == nil
}

func (p *poller) watchSocket(fd uintptr) {
	p.watchErr = unix.EpollCtl(p.fd, p.operation, int(fd), &p.event)
}

// remove frees the client's slot. The kernel has removed the socket when it was closed.
func (p *poller) remove(c *Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.input.registered {
		c.input.registered = false
		p.freeSlot(c)
	}
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
		if event.Events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0 {
			c.hangUp()
		}
		if d := c.descriptor(); d != nil {
			d.wake(event.Events)
		}
		if event.Events != unix.EPOLLOUT {
			clients = append(clients, c)
		}
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
	raw := c.descriptorAccess()
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

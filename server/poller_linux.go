package server

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxEvents is how many clients the poller learns of at once.
const maxEvents = 256

// poller tells from which clients something has come. The runtime's own poller can tell that to a goroutine
// only, and thousands that wait take more memory than all else that a connection needs. Its methods may be
// called from any number of goroutines; only close blocks.
type poller struct {
	mu sync.Mutex // protects what follows; nothing is called under it that blocks
	// epoll is made with the first client. The runtime's poller waits for it as for any file.
	epoll *os.File
	fd    int
	// places are the clients, and free those places that have none.
	places []*Client
	free   []int32
	closed bool
	// watch is the method watchSocket as a value, made once, which takes event and leaves its result in failed.
	watch  func(fd uintptr)
	event  unix.EpollEvent
	failed error
	// running waits for the goroutine.
	running sync.WaitGroup
}

// add has a client awakened whenever something comes. It reports false where that is not possible.
func (p *poller) add(c *Client) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.open() {
		return false
	}
	if last := len(p.free) - 1; last >= 0 {
		c.input.place, p.free = p.free[last], p.free[:last]
	} else {
		c.input.place = int32(len(p.places)) //nolint:gosec // fewer than there are descriptors
		p.places = append(p.places, nil)
	}
	p.places[c.input.place] = c
	p.event = unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET, Fd: c.input.place}
	if err := c.input.raw.Control(p.watch); err != nil || p.failed != nil {
		p.forget(c)
		return false
	}
	return true
}

func (p *poller) watchSocket(fd uintptr) {
	p.failed = unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, int(fd), &p.event)
}

// remove undoes add. The kernel has forgotten the socket when it was closed.
func (p *poller) remove(c *Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(c)
}

func (p *poller) forget(c *Client) {
	p.places[c.input.place] = nil
	p.free = append(p.free, c.input.place)
}

// open makes sure that the goroutine runs.
func (p *poller) open() bool {
	if p.epoll != nil {
		return true
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return false
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else the runtime would not wait for it
		_ = unix.Close(fd)
		return false
	}
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return false
	}
	p.epoll, p.fd, p.watch = file, fd, p.watchSocket
	p.running.Go(func() { p.run(raw) })
	return true
}

// run awakens clients until the poller is closed.
func (p *poller) run(raw syscall.RawConn) {
	events := make([]unix.EpollEvent, maxEvents)
	clients := make([]*Client, 0, maxEvents)
	var n int
	look := func(fd uintptr) bool {
		n, _ = unix.EpollWait(int(fd), events, 0) // fails only if interrupted
		return n != 0
	}
	for raw.Read(look) == nil {
		clients = p.those(clients, events[:max(n, 0)])
		for _, c := range clients {
			c.awaken()
		}
		clear(clients) // lets the clients be collected
	}
}

// those returns the clients that the events are about, in the room of a slice. An event may come too late for
// its client and be taken for the next one in its place, which then finds nothing to read.
func (p *poller) those(clients []*Client, events []unix.EpollEvent) []*Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	clients = clients[:0]
	for _, event := range events {
		c := p.places[event.Fd]
		if c == nil {
			continue
		}
		if event.Events != unix.EPOLLIN {
			c.hangUp()
		}
		clients = append(clients, c)
	}
	return clients
}

// close ends the goroutine. No client may be left.
func (p *poller) close() {
	p.mu.Lock()
	if p.epoll != nil && !p.closed {
		_ = p.epoll.Close()
	}
	p.closed = true
	p.mu.Unlock()
	p.running.Wait()
}

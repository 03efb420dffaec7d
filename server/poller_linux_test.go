package server

import (
	"testing"

	"golang.org/x/sys/unix"
)

// An event of a connection that has ended does not end the contexts of the next connection in its slot.
func TestPoller_IgnoresEventsOfFormerClients(t *testing.T) {
	var current Client
	p := poller{slots: []pollSlot{{client: &current, use: 2}}}
	stale := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: 0, Pad: 1}
	if clients := p.clientsOf(nil, []unix.EpollEvent{stale}); len(clients) != 0 || current.gone() {
		t.Error("an event of the slot's former client has reached the current one")
	}
	stale.Pad = 2
	if clients := p.clientsOf(nil, []unix.EpollEvent{stale}); len(clients) != 1 || !current.gone() {
		t.Error("an event has not reached its client")
	}
}

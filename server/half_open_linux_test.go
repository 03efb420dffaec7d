package server_test

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// discardAll has the kernel drop every packet for a connection before TCP sees it, as if the other end had lost its
// network: nothing is acknowledged any more, and nobody learns why.
func discardAll(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	filter := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
}

// A client that vanishes without closing its connection is noticed when its system acknowledges nothing for
// IdleTimeout; one that is there is not closed, although it sends nothing either.
func TestEvents_HalfOpen(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.PingInterval, o.IdleTimeout, o.CloseTimeout = 100*time.Millisecond, time.Second, 100*time.Millisecond
	})
	healthy := n.events("bob", "/events/uploads/a")
	healthy.subscribed("a", false)
	vanished := n.dialEvents("ann", "1.1").(*net.TCPConn)
	readUntil(t, vanished, "}\n\n")
	discardAll(t, vanished)
	waitFor(t, func() bool { return n.server.Stats().Open == 1 && n.manager.Stats().Users == 1 })
	n.publish("a", 1)
	healthy.want(`{"action":"note","n":1,"offset":1,"upload_id":"a"}`)
	for _, c := range n.server.Inspect().Closings {
		if c.Code == manager.IdleTimeout.Code && c.Count != 1 {
			t.Errorf("%d connections were closed for their silence, want 1", c.Count)
		}
	}
}

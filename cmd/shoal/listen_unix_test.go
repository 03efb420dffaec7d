//go:build unix

package main

import (
	"net"
	"syscall"
	"testing"
)

// Nothing but data is sent on a connection, and nothing is set for it that it does not need.
func TestConnectionsAreNotKeptAliveByTCP(t *testing.T) {
	l, err := listen("addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	raw, err := accepted.(*net.TCPConn).SyscallConn() //nolint:forcetypeassert // listen is for TCP
	if err != nil {
		t.Fatal(err)
	}
	var on int
	if controlErr := raw.Control(func(fd uintptr) {
		on, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
	}); controlErr != nil || err != nil || on != 0 {
		t.Errorf("SO_KEEPALIVE is %d, errors %v and %v", on, controlErr, err)
	}
}

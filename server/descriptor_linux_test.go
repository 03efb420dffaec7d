package server

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shoal-go/shoal/internal/outbox"
)

// newDescriptorPair returns a descriptor that is registered with a poller, and the other end of its connection. Small
// buffers make it wait often.
func newDescriptorPair(t *testing.T, network string) (*descriptor, net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, map[string]string{"tcp": "127.0.0.1:0", "unix": t.TempDir() + "/s"}[network])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	peer, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{conn, peer} {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 1) })
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := &Server{writers: outbox.NewPool(outbox.Options{})}
	t.Cleanup(s.writers.Close)
	t.Cleanup(s.poller.close)
	c := &Client{server: s}
	c.attach(conn)
	d := c.descriptor()
	if d == nil {
		t.Fatalf("a %T is not detached", conn)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing to the connection of package net: %v, want %v", err, net.ErrClosed)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, peer
}

// TestDescriptor_CarriesAllBytes: both directions are complete and in order, however often the socket is full or empty, and
// whether the client is registered before or while somebody waits.
func TestDescriptor_CarriesAllBytes(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			d, peer := newDescriptorPair(t, network)
			sent := make([]byte, 300<<10)
			for i := range sent {
				sent[i] = byte(rand.Uint32())
			}
			var running sync.WaitGroup
			defer running.Wait()
			running.Go(func() {
				if _, err := d.Write(sent); err != nil {
					t.Error(err)
				}
				if err := d.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			running.Go(func() { _, _ = io.Copy(peer, peer); _ = peer.(interface{ CloseWrite() error }).CloseWrite() })
			d.client.server.poller.watchHangUp(d.client, (*rawDescriptor)(d))
			got, err := io.ReadAll(d)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("read %d bytes back, %v, want the %d that were written", len(got), err, len(sent))
			}
		})
	}
}

// TestDescriptor_CloseEndsWaiting: Close ends everything that waits, and no system call reaches a number that the system
// may have given to another file.
func TestDescriptor_CloseEndsWaiting(t *testing.T) {
	d, peer := newDescriptorPair(t, "tcp")
	d.client.server.poller.watchHangUp(d.client, (*rawDescriptor)(d))
	var waiting, running sync.WaitGroup
	var once [2]sync.Once
	waiting.Add(len(once))
	raw := (*rawDescriptor)(d)
	running.Go(func() {
		err := raw.Read(func(uintptr) bool { once[0].Do(waiting.Done); return false })
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading ends with %v, want %v", err, net.ErrClosed)
		}
	})
	running.Go(func() {
		err := raw.Write(func(uintptr) bool { once[1].Do(waiting.Done); return false })
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("writing ends with %v, want %v", err, net.ErrClosed)
		}
	})
	waiting.Wait()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	running.Wait()
	if err := d.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close returns %v, want %v", err, net.ErrClosed)
	}
	if err := raw.Control(func(uintptr) { t.Error("the descriptor is used after Close") }); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Control returns %v, want %v", err, net.ErrClosed)
	}
	if n, err := peer.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the peer reads %d bytes, %v: its connection is still open", n, err)
	}
}

// TestDescriptor_IsClosedOnce: whoever is the last to use a closed descriptor closes it, and nobody closes the file that
// gets its number next.
func TestDescriptor_IsClosedOnce(t *testing.T) {
	for range 40 {
		d, _ := newDescriptorPair(t, "tcp")
		var running sync.WaitGroup
		var closed atomic.Int32
		for range 4 {
			running.Go(func() {
				_ = (*rawDescriptor)(d).Control(func(fd uintptr) {
					if _, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil {
						t.Errorf("a system call while the descriptor is acquired: %v", err)
					}
				})
				if d.Close() == nil {
					closed.Add(1)
				}
			})
		}
		running.Wait()
		if n := closed.Load(); n != 1 {
			t.Fatalf("Close was successful %d times, want 1", n)
		}
		if uses := d.uses.Load(); uses != descriptorClosed {
			t.Fatalf("uses is %#x after all have ended, want %#x", uses, descriptorClosed)
		}
	}
}

// TestDescriptor_KeepsTheAddress: the peer's address is known after the socket is closed, as OnDisconnect needs it.
func TestDescriptor_KeepsTheAddress(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		d, peer := newDescriptorPair(t, network)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if got, want := d.RemoteAddr().String(), peer.LocalAddr().String(); got != want {
			t.Errorf("over %s the peer is %q, want %q", network, got, want)
		}
	}
	if size := unsafe.Sizeof(descriptor{}); size > 48 {
		t.Errorf("a descriptor has %d bytes, want at most 48", size)
	}
}

// TestDescriptor_WithoutPollerIsClosed: what cannot be waited for does not stay open.
func TestDescriptor_WithoutPollerIsClosed(t *testing.T) {
	d, _ := newDescriptorPair(t, "tcp")
	p := &d.client.server.poller
	p.close()
	if p.add(d.client, (*rawDescriptor)(d)) {
		t.Error("a closed poller accepts a client")
	}
	if _, err := d.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading returns %v, want %v", err, net.ErrClosed)
	}
}

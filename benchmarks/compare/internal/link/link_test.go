package link

import (
	"bytes"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sockets returns two ends of a connection that keeps packets apart, as a TUN device does.
func sockets(t *testing.T) (near, far *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far = os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

// send passes packets of a size over a link and returns those that arrive.
func send(t *testing.T, o Options, packets, size int) [][]byte {
	t.Helper()
	in, from := sockets(t)
	to, out := sockets(t)
	l := &Link{devices: []*os.File{from, to}}
	l.pass(o, from, to)
	for i := range packets {
		if _, err := in.Write(bytes.Repeat([]byte{byte(i + 1)}, size)); err != nil {
			t.Fatal(err)
		}
	}
	_ = in.Close() // the link reads the end after the packets
	l.running.Wait()
	_ = to.Close()
	var all [][]byte
	for {
		data := make([]byte, 2*size)
		n, err := out.Read(data)
		if n == 0 || err != nil {
			return all
		}
		all = append(all, data[:n])
	}
}

func TestLink_PassesPacketsInOrder(t *testing.T) {
	got := send(t, Options{Rate: 1e7, Delay: time.Millisecond}, 20, 100)
	if len(got) != 20 {
		t.Fatalf("%d packets arrived, want 20", len(got))
	}
	for i, data := range got {
		if !bytes.Equal(data, bytes.Repeat([]byte{byte(i + 1)}, 100)) {
			t.Errorf("packet %d is %v", i, data)
		}
	}
}

// A packet that would have to wait for longer than the queue holds is dropped.
func TestLink_DropsBeyondQueue(t *testing.T) {
	if got := send(t, Options{Rate: 800}, 5, 50); len(got) != 1 {
		t.Errorf("%d packets of half a second each arrived, want 1", len(got))
	}
}

func TestLink_LosesPackets(t *testing.T) {
	if got := send(t, Options{Rate: 1e7, Loss: 1}, 20, 100); len(got) != 0 {
		t.Errorf("%d packets arrived over a link that loses all", len(got))
	}
}

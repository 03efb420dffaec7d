// Package link emulates a slow link between two network namespaces: a TUN device in each, and this process between them,
// which delays, drops and limits the packets. tc would do the same with netem, which not every kernel has; TCP at both
// ends is the kernel's own either way.
package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options describe a link, the same in both directions.
type Options struct {
	// Rate is in bits per second, Delay each way, and Loss the share of the packets that are lost.
	Rate  float64
	Delay time.Duration
	Loss  float64
}

// Addresses of the two ends.
const (
	ServerAddr = "10.77.0.1"
	clientAddr = "10.77.0.2"
)

const (
	// queueTime is how long a packet waits for the link at most; later ones are dropped.
	queueTime = 400 * time.Millisecond
	// mtu is the size of a packet in bytes.
	mtu = 1500
)

// Link is a link with its namespaces. It is used from one goroutine.
type Link struct {
	server, client string // namespaces
	devices        []*os.File
	running        sync.WaitGroup
}

// Check returns an error that names the missing requirements of links.
func Check() error {
	_, err := exec.LookPath("ip")
	_, tun := os.Stat(tunDevice)
	if err = errors.Join(err, tun); os.Geteuid() != 0 {
		err = errors.Join(err, errors.New("this user is not root"))
	}
	if err != nil {
		return fmt.Errorf("link: S10 needs Linux, root, the command ip of iproute2 and %s: %w", tunDevice, err)
	}
	return nil
}

// New makes a link and starts to pass packets on. The caller must call Close.
func New(ctx context.Context, o Options) (l *Link, err error) {
	if err := Check(); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("shoal%d", os.Getpid())
	l = &Link{server: name + "s", client: name + "c"}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	for _, end := range []struct{ namespace, own, peer string }{{l.server, ServerAddr, clientAddr}, {l.client, clientAddr, ServerAddr}} {
		device, err := openTUN(end.namespace)
		if err != nil {
			return l, err
		}
		l.devices = append(l.devices, device)
		for _, command := range []string{
			"netns add NS", "link set NS netns NS", "-n NS addr add " + end.own + " peer " + end.peer + " dev NS",
			"-n NS link set NS mtu " + fmt.Sprint(mtu) + " up", "-n NS link set lo up",
		} {
			if err := ip(ctx, strings.ReplaceAll(command, "NS", end.namespace)); err != nil {
				return l, err
			}
		}
	}
	l.pass(o, l.devices[0], l.devices[1])
	l.pass(o, l.devices[1], l.devices[0])
	return l, nil
}

func ip(ctx context.Context, arguments string) error {
	out, err := exec.CommandContext(ctx, "ip", strings.Fields(arguments)...).CombinedOutput() // names of our own
	if err != nil {
		return fmt.Errorf("link: ip %s: %w: %s", arguments, err, out)
	}
	return nil
}

// tunDevice is the file that TUN devices are made with.
const tunDevice = "/dev/net/tun"

// openTUN makes a TUN device, which disappears when the file is closed.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("link: %s: %w", tunDevice, err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("link: the device %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil // not negative
}

// packet is a packet on its way.
type packet struct {
	data    []byte
	arrives time.Time
}

// pass passes packets on from one device to another until they are closed.
func (l *Link) pass(o Options, from, to *os.File) {
	// As many packets as wait and are under way at most, if all are small.
	const smallest = 40
	underWay := make(chan packet, int(o.Rate/8*(queueTime+o.Delay).Seconds()/smallest)+1)
	l.running.Go(func() {
		defer close(underWay)
		var free time.Time // when the link has sent everything that waits
		for {
			data := make([]byte, mtu)
			n, err := from.Read(data)
			if err != nil {
				return
			}
			now := time.Now()
			if free.Before(now) {
				free = now
			}
			if free.Sub(now) > queueTime || rand.Float64() < o.Loss { // no secret
				continue
			}
			free = free.Add(time.Duration(float64(n) * 8 / o.Rate * float64(time.Second)))
			select {
			case underWay <- packet{data[:n], free.Add(o.Delay)}:
			default: // more small packets than the queue holds
			}
		}
	})
	l.running.Go(func() {
		for p := range underWay {
			time.Sleep(time.Until(p.arrives))
			_, _ = to.Write(p.data) // a packet that is not accepted is lost
		}
	})
}

// Server returns the beginning of commands that run at the server's end of the link.
func (l *Link) Server() []string { return []string{"ip", "netns", "exec", l.server} }

// Client returns the beginning for the client's end.
func (l *Link) Client() []string { return []string{"ip", "netns", "exec", l.client} }

// Close removes the devices and the namespaces. The processes in them should have ended.
func (l *Link) Close() error {
	for _, device := range l.devices {
		_ = device.Close()
	}
	l.running.Wait()
	var all error
	for _, namespace := range []string{l.server, l.client} {
		if _, err := os.Stat("/var/run/netns/" + namespace); err == nil {
			all = errors.Join(all, ip(context.Background(), "netns del "+namespace))
		}
	}
	return all
}

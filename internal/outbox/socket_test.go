//go:build unix

package outbox

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/frame"
)

// openTCP returns an outbox over a loopback connection whose client reads nothing yet.
func openTCP(t *testing.T, opt Options) (*Pool, *Outbox, *net.TCPConn) {
	t.Helper()
	server, client := tcpPair(t)
	p := NewPool(opt.withoutBurst())
	t.Cleanup(p.Close)
	o := p.Open(server, Config{Variant: frame.V1})
	if o.raw == nil {
		t.Fatal("a TCP connection has no file descriptor to write to")
	}
	return p, o, client
}

// kernelHolds exceeds the capacity of the buffers of both ends of tcpPair: the kernel doubles the requested sizes.
const kernelHolds = 2 * (tcpSend + tcpReceive)

// fill sends events until the socket refuses bytes and as many wait as it could ever take without its client
// reading, and returns how many. A socket that refuses bytes may accept more a moment later, when the bytes
// sent before have been acknowledged.
func fill(t *testing.T, p *Pool, o *Outbox) int {
	t.Helper()
	n := 0
	eventually(t, "the socket is full", func() bool {
		for range 16 {
			send(t, o, Queued, data("fill", frame.Event, n, 2000))
			n++
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		return p.Stats().Stalled == 1 && o.data.unwritten.bytes > kernelHolds
	})
	return n
}

var roomy = Options{MaxBytes: 64 << 20, MaxMessages: 1 << 20, MaxAge: time.Minute}

func TestOutbox_StalledSocketResumes(t *testing.T) {
	p, o, client := openTCP(t, roomy)
	for round := range 3 {
		n := fill(t, p, o)
		// The socket has refused bytes, so there is pressure although the queue is nearly empty.
		send(t, o, Queued, data("a", frame.State, 1, 0))
		send(t, o, Conflated, data("a", frame.State, 2, 0))
		send(t, o, Queued, control(frame.Ping, "ahead"))
		pings := 0
		for want := 0; want < n; {
			r := mustRead(t, client, 1)[0]
			if r.opcode == frame.Ping {
				pings++
				continue
			}
			if m := r.message(t); m.Number != want || m.Skipped != 0 {
				t.Fatalf("round %d: message %d came with %d skipped, want message %d", round, m.Number, m.Skipped, want)
			}
			want++
		}
		if got := numbers(t, mustRead(t, client, 1)); got != "a2+1" || pings != 1 {
			t.Errorf("round %d: the last was %s, want a2+1; %d pings came before it, want 1", round, got, pings)
		}
		eventually(t, "the writer has the outbox back", func() bool { return p.Stats().Stalled == 0 })
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owned || o.timer != nil || o.index != nil || o.data != (queue{}) || o.control != (queue{}) {
		t.Error("a drained outbox still holds something")
	}
}

func TestOutbox_StalledSocketOverflows(t *testing.T) {
	p, o, client := openTCP(t, Options{MaxBytes: 64 << 20, MaxMessages: 1000, MaxAge: time.Minute})
	n := fill(t, p, o)
	for o.Send(data("a", frame.Terminal, n, 0)) == Queued {
		n++
	}
	go readUntilGone(o, o.conn)
	all, err := readFrames(client)
	if err != nil {
		t.Fatalf("the stream ends inside a frame: %v", err)
	}
	last := all[len(all)-1]
	if last.closeCode() != 1013 {
		t.Errorf("the last frame has opcode %d and code %d, want a close frame with 1013", last.opcode, last.closeCode())
	}
	client.Close()
	<-o.Done()
	if got := p.Stats(); got.Overflowed != 1 || got.Stalled != 0 || got.Frames != uint64(len(all)) {
		t.Errorf("counted %+v, %d frames came", got, len(all))
	}
}

// Bytes that the client sends while the server closes must not cause a reset that destroys the close frame.
func TestOutbox_CloseFrameArrivesDespiteUnreadInput(t *testing.T) {
	_, o, client := openTCP(t, roomy)
	if _, err := client.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the input has arrived", func() bool { return unread(t, o.conn) >= 1000 })
	send(t, o, Queued, data("a", frame.Event, 1, 1<<20)) // more than the kernel holds
	o.Close(frame.NewClose(1012, "Server reloading"))
	var all []received
	read := make(chan error)
	go func() {
		var err error
		all, err = readFrames(client)
		client.Close()
		read <- err
	}()
	err := <-read
	if err != nil || len(all) != 2 || all[1].closeCode() != 1012 {
		t.Errorf("the client got %d frames and %v, want 2 and the end of the stream", len(all), err)
	}
	readUntilGone(o, o.conn)
	<-o.Done()
}

// unread returns how many bytes the connection holds that nobody has read.
func unread(t *testing.T, conn net.Conn) int {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	buf := make([]byte, 4096)
	if err := raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), buf, syscall.MSG_PEEK)
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOutbox_WriteErrorEndsIt(t *testing.T) {
	_, o, client := openTCP(t, roomy)
	_ = client.SetLinger(0)
	client.Close()
	eventually(t, "the reset is noticed", func() bool {
		return o.Send(data("a", frame.Event, 1, 0)) == Dropped
	})
	<-o.Done()
}

func TestOutbox_AbortReleasesStalledSocket(t *testing.T) {
	p, o, _ := openTCP(t, roomy)
	fill(t, p, o)
	o.Abort()
	<-o.Done()
	if got := p.Stats().Stalled; got != 0 {
		t.Errorf("%d are stalled, want none", got)
	}
}

func TestOutbox_LargeQueueIsWrittenInSeveralBatches(t *testing.T) {
	p, o, client := openTCP(t, roomy)
	const frames = 300
	go func() {
		for i := range frames {
			o.Send(data("a", frame.Event, i, 3000))
		}
		o.Send(data("a", frame.Event, frames, 3*writerBatch))
		o.Send(data("a", frame.Event, frames+1, 0))
	}()
	for i, r := range mustRead(t, client, frames+2) {
		if m := r.message(t); m.Number != i {
			t.Fatalf("message %d came as number %d", m.Number, i)
		}
	}
	eventually(t, "all is counted", func() bool { return p.Stats().Frames == frames+2 })
}

// certificate returns one for a server that nobody asks for its name.
func certificate() []tls.Certificate {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return s.TLS.Certificates
}

// overTLS returns both ends of a TLS connection over the given one.
func overTLS(own []tls.Certificate, server, client net.Conn) (secured, peer *tls.Conn) {
	return tls.Server(server, &tls.Config{Certificates: own}),
		tls.Client(client, &tls.Config{InsecureSkipVerify: true})
}

func TestOutbox_TLS(t *testing.T) {
	p := NewPool(roomy)
	defer p.Close()
	server, client := tcpPair(t)
	secured, peer := overTLS(certificate(), server, client)
	o := p.Open(secured, Config{})
	go readUntilGone(o, secured) // makes the handshake, too
	if err := peer.Handshake(); err != nil {
		t.Fatal(err)
	}
	const frames = 200
	for i := range frames {
		send(t, o, Queued, data("a", frame.Event, i, 1000))
	}
	o.Close(frame.NewClose(1000, ""))
	all, err := readFrames(peer)
	if err != nil || len(all) != frames+1 || all[frames].closeCode() != 1000 {
		t.Errorf("the client got %d frames and %v, want %d and the end of the stream", len(all), err, frames+1)
	}
	peer.Close()
	<-o.Done()
}

// Closing a TLS connection properly means writing, for which nobody has the time here.
func TestOutbox_AbortDoesNotWaitForTLS(t *testing.T) {
	own := certificate()
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(roomy)
		defer p.Close()
		server, client := net.Pipe()
		secured, peer := overTLS(own, server, client)
		o := p.Open(secured, Config{})
		go readUntilGone(o, secured)
		if err := peer.Handshake(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		o.Abort()
		<-o.Done()
		if took := time.Since(start); took != 0 {
			t.Errorf("Abort has waited for %v", took)
		}
	})
}

// A countingConn has a Write method of its own and the SyscallConn of the connection that it embeds.
type countingConn struct {
	*net.TCPConn
	written atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.written.Add(int64(len(p)))
	return c.TCPConn.Write(p)
}

// A type that embeds *net.TCPConn may count, throttle or encrypt: its Write method is not bypassed.
func TestOutbox_WriteMethodOfWrapperIsUsed(t *testing.T) {
	server, client := tcpPair(t)
	p := NewPool(Options{})
	defer p.Close()
	wrapped := &countingConn{TCPConn: server}
	o := p.Open(wrapped, Config{Variant: frame.V1})
	f := data("a", frame.Event, 1, 0)
	send(t, o, Queued, f)
	mustRead(t, client, 1)
	if got := wrapped.written.Load(); got != int64(f.Size()) {
		t.Errorf("Write got %d bytes, want %d", got, f.Size())
	}
}

// A descriptor that the application has made blocking does not block the writer when the socket is full.
func TestOutbox_BlockingDescriptorDoesNotBlockWriter(t *testing.T) {
	p, o, client := openTCP(t, roomy)
	file, err := o.conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	file.Fd() // makes the shared file description blocking
	n := fill(t, p, o)
	for i, r := range mustRead(t, client, n) {
		if m := r.message(t); m.Number != i {
			t.Fatalf("message %d came as number %d", m.Number, i)
		}
	}
}

// socketPair returns two connected stream sockets; the server's has the smallest possible send buffer.
func socketPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		ends[i], err = net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := ends[0].(*net.UnixConn).SetWriteBuffer(1); err != nil {
		t.Fatal(err)
	}
	return ends[0], ends[1]
}

// gatedRaw reports the first wait for its socket, and lets it begin once proceed is closed.
type gatedRaw struct {
	syscall.RawConn
	waiting, proceed chan struct{}
	once             *sync.Once
}

func (r gatedRaw) Write(f func(fd uintptr) bool) error {
	r.once.Do(func() { close(r.waiting) })
	<-r.proceed
	return r.RawConn.Write(f)
}

// A stalled outbox dequeues frames when its socket is writable: the client then gets the newest state, not the one that
// was the newest when the socket refused it.
func TestOutbox_StateIsReplacedUntilSocketIsWritable(t *testing.T) {
	p := NewPool(roomy)
	defer p.Close()
	server, client := socketPair(t)
	raw, err := server.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	gate := gatedRaw{raw, make(chan struct{}), make(chan struct{}), new(sync.Once)}
	o := p.Open(server, Config{Variant: frame.V1, Raw: gate})
	sent := 0
	eventually(t, "the outbox waits for its socket", func() bool {
		select {
		case <-gate.waiting:
			return true
		default:
		}
		if o.Pending() == (Pending{}) {
			send(t, o, Queued, data("a", frame.State, sent, 0))
			sent++
		}
		return false
	})
	for range 100 {
		send(t, o, Conflated, data("a", frame.State, sent, 0))
		sent++
	}
	close(gate.proceed)
	all := mustRead(t, client, sent-100)
	if got, want := numbers(t, all[len(all)-1:]), fmt.Sprintf("a%d+100", sent-1); got != want {
		t.Errorf("the last state was %s, want %s", got, want)
	}
}

// tryingConn is a TryWriter as one over TLS is: it takes everything, and keeps the bytes that the socket refuses.
type tryingConn struct {
	net.Conn
	raw     syscall.RawConn
	mu      sync.Mutex // protects pending
	pending []byte
}

func newTryingConn(t testing.TB, conn net.Conn) *tryingConn {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return &tryingConn{Conn: conn, raw: raw}
}

func (c *tryingConn) Write(p []byte) (int, error) {
	if _, err := c.TryWrite(p); err != nil {
		return 0, err
	}
	return len(p), c.WritePending()
}

func (c *tryingConn) CloseWrite() error { return c.Conn.(*net.UnixConn).CloseWrite() }

func (c *tryingConn) TryWrite(p []byte) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var (
		n   int
		err error
	)
	if len(c.pending) == 0 {
		if failed := c.raw.Control(func(fd uintptr) { n, err = tryWrite(fd, p) }); failed != nil || err != nil {
			return false, errors.Join(failed, err)
		}
	}
	c.pending = append(c.pending, p[n:]...)
	return len(c.pending) > 0, nil
}

func (c *tryingConn) WritePending() error {
	for {
		c.mu.Lock()
		rest := c.pending
		c.pending = nil
		c.mu.Unlock()
		if len(rest) == 0 {
			return nil
		}
		if _, err := c.Conn.Write(rest); err != nil {
			return err
		}
	}
}

// hold keeps a frame of the connection's own.
func (c *tryingConn) hold(f *frame.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = f.Append(c.pending, frame.V1, 0)
}

// TestOutbox_WritePending: the bytes that a connection holds are written soon, whoever owns the outbox or nobody, and do
// not break the frames.
func TestOutbox_WritePending(t *testing.T) {
	server, client := socketPair(t)
	conn := newTryingConn(t, server)
	p := NewPool(Options{})
	defer p.Close()
	o := p.Open(conn, Config{Variant: frame.V1})
	const answers = 1000
	messages := 0
	for i := range answers {
		conn.hold(control(frame.Ping, fmt.Sprint(i)))
		o.WritePending()
		if i%3 == 0 {
			send(t, o, Queued, data("a", frame.Event, messages, 0))
			messages++
		}
	}
	answer, message := 0, 0
	for _, got := range mustRead(t, client, answers+messages) {
		if got.opcode == frame.Ping {
			if string(got.body) != fmt.Sprint(answer) {
				t.Fatalf("got %s, want %d", got.body, answer)
			}
			answer++
			continue
		}
		if n := got.message(t).Number; n != message {
			t.Fatalf("got message %d, want %d", n, message)
		}
		message++
	}
	eventually(t, "the outbox is idle", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return !o.owned
	})
	conn.hold(control(frame.Ping, "last"))
	o.WritePending()
	if got := bodies(mustRead(t, client, 1)); got != "last\n" {
		t.Errorf("got %q", got)
	}
	o.Abort()
	o.WritePending() // has no effect
}

func TestOutbox_AnySequenceOverSocket(t *testing.T) {
	anySequenceOverSocket(t, func(conn net.Conn) net.Conn { return conn })
}

func TestOutbox_AnySequenceOverTryWriter(t *testing.T) {
	anySequenceOverSocket(t, func(conn net.Conn) net.Conn { return newTryingConn(t, conn) })
}

func anySequenceOverSocket(t *testing.T, wrap func(net.Conn) net.Conn) {
	t.Helper()
	rapid.Check(t, func(rt *rapid.T) {
		opt, steps := bounds.Draw(rt, "bounds"), ops.Draw(rt, "ops")
		server, client := socketPair(t)
		server = wrap(server)
		p := NewPool(opt.withoutBurst())
		defer p.Close()
		// Sent frames are either in the kernel or queued because the kernel refused them.
		r := newRun(p, server, client, nil)
		r.settle = func() {
			eventually(t, "the writer is through", func() bool {
				r.box.mu.Lock()
				defer r.box.mu.Unlock()
				return !r.box.owned || r.box.draining
			})
		}
		if err := r.all(t, p, steps); err != nil {
			rt.Fatal(err)
		}
	})
}

// TestRecovery_OverSocket is TestRecovery_AnySequence over a socket, which refuses bytes in the middle of frames: concurrent publishers, and a
// client that reads at full speed or in small pieces.
func TestRecovery_OverSocket(t *testing.T) {
	for _, piece := range []int{100, 1 << 20} {
		for _, limits := range []Options{{}, {MaxRecoveryBytes: 10_000}, {MaxRecoveryBytes: 1, MaxMessages: 1}} {
			server, client := socketPair(t)
			p := NewPool(limits)
			s := &recoverySession{store: newStore(1 << 20), since: map[string]uint64{}, stream: make(chan []byte, 1)}
			s.box = p.Open(server, Config{Variant: frame.V1})
			go func() {
				var all []byte
				buf := make([]byte, piece)
				for {
					n, err := client.Read(buf)
					all = append(all, buf[:n]...)
					if err != nil {
						_ = client.Close()
						s.stream <- all
						return
					}
				}
			}()
			const uploads, stored, live = 5, 200, 200
			for u := range uploads {
				for range stored {
					s.store.publish(nil, fmt.Sprint("u", u), frame.Event, 300)
				}
			}
			var publishers sync.WaitGroup
			s.box.Hold()
			for u := range uploads {
				s.recover(t, fmt.Sprint("u", u), uint64(u))
				publishers.Go(func() {
					for range live {
						s.store.publish(s.box, fmt.Sprint("u", u), []frame.Class{frame.Event, frame.State}[u%2], 300)
					}
				})
			}
			s.box.Release(nil)
			publishers.Wait()
			eventually(t, "the outbox is idle", func() bool {
				s.box.mu.Lock()
				defer s.box.mu.Unlock()
				return !s.box.owned
			})
			s.finish(t)
			p.Close()
		}
	}
}

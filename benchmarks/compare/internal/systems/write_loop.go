package systems

import (
	"iter"
	"maps"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"
	"golang.org/x/sys/unix"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/internal/frame"
)

// writeLoop is a yardstick: a loop that does nothing but write(2) of the ready frame to each socket, on as
// many goroutines as there are cores, each with the sockets that are its own. gws upgrades and reads. There is
// no queue, no lock per connection and no runtime poller on the way out: nothing that writes once for each
// message can do with less.
//
// With joined set it is joined-write: of the messages published at once, the frames of a socket are joined into
// one buffer and written by one write(2), the limit for bursts.
type writeLoop struct {
	gws.BuiltinEventHandler
	upgrader *gws.Upgrader
	joined   bool
	goroutines
	parts []part
	next  atomic.Uint64 // the part of the next connection
}

// part are the sockets that one goroutine writes to. The lock is held while writing, so that no socket closes during a write.
type part struct{ followers[*socket] }

func newWriteLoop(joined bool) (System, error) {
	s := &writeLoop{joined: joined, parts: make([]part, runtime.GOMAXPROCS(0))}
	s.upgrader = gws.NewUpgrader(s, gwsOption())
	return s, nil
}

// noCloseConn is a connection whose close is left to its owner: the number of a closed socket may be another
// connection's by the time it is written to.
type noCloseConn struct{ net.Conn }

func (noCloseConn) Close() error { return nil }

func (s *writeLoop) Handler() http.Handler {
	return s.counted(func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		reader, err := s.upgrader.UpgradeFromConn(noCloseConn{conn}, buffered.Reader, r)
		if err != nil {
			_ = conn.Close()
			return
		}
		s.start(func() {
			reader.ReadLoop()
			if stored, ok := reader.Session().Load("socket"); ok {
				out := stored.(*socket) // stored by join
				out.part.leave(out)
			}
			_ = conn.Close()
		})
	})
}

// OnMessage has the conversation with a client.
func (s *writeLoop) OnMessage(reader *gws.Conn, m *gws.Message) {
	defer m.Close()
	reply, channel, err := answer(m.Bytes())
	if err != nil {
		reader.WriteClose(1008, nil)
		// This ends the reader: its connection cannot be closed from here.
		_ = reader.NetConn().SetReadDeadline(time.Unix(1, 0))
		return
	}
	reader.WriteMessage(gws.OpcodeText, reply) //nolint:errcheck // an error closes the connection
	if channel != "" {
		s.join(channel, reader)
	}
}

func (s *writeLoop) join(channel string, reader *gws.Conn) {
	out := &socket{conn: reader.NetConn().(noCloseConn).Conn, fd: -1} // made above
	if tcp, ok := out.conn.(*net.TCPConn); ok {
		raw, err := tcp.SyscallConn()
		if err != nil || raw.Control(func(fd uintptr) { out.fd = int(fd) }) != nil {
			return
		}
	}
	out.part = &s.parts[s.next.Add(1)%uint64(len(s.parts))]
	reader.Session().Store("socket", out)
	out.part.join(channel, out)
}

// Publish returns when all has been written.
func (s *writeLoop) Publish(messages []message.Message) error {
	together := slices.Chunk(messages, 1)
	if s.joined {
		channels := map[string][]message.Message{}
		for _, m := range messages {
			channels[m.Channel] = append(channels[m.Channel], m)
		}
		together = maps.Values(channels)
	}
	var writers sync.WaitGroup
	for i := range s.parts {
		writers.Go(func() { s.parts[i].write(together) })
	}
	writers.Wait()
	return nil
}

// write writes the frames of messages of one channel together, by one system call for each of its sockets.
func (p *part) write(together iter.Seq[[]message.Message]) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var late []*socket // that have not accepted all
	var wire []byte
	for messages := range together {
		sockets := p.of[messages[0].Channel]
		if len(sockets) == 0 {
			continue
		}
		wire = wire[:0]
		for _, m := range messages {
			wire = m.AppendJSON(frame.AppendHeader(wire, frame.Text, m.Size))
		}
		for _, out := range sockets {
			if out.write(wire) {
				late = append(late, out)
			}
		}
	}
	var writing sync.WaitGroup
	for _, s := range late {
		writing.Go(s.finish)
	}
	writing.Wait()
}

func (s *writeLoop) Subscriptions() (n int) {
	for i := range s.parts {
		n += s.parts[i].Subscriptions()
	}
	return n
}

// socket is a connection that is written to by number. One goroutine at a time may use it.
type socket struct {
	conn net.Conn
	fd   int   // -1: it is one over TLS, whose writes block
	part *part // that writes to it
	// rest are the bytes that the kernel has not accepted yet. As long as there are any, nothing else may be written.
	rest []byte
	// stuck: the client does not read, or has gone. It is left out from now on.
	stuck bool
}

// write writes one buffer by one system call and reports whether a remainder is left, for finish.
func (s *socket) write(wire []byte) bool {
	switch {
	case s.stuck:
		return false
	case len(s.rest) > 0:
		s.rest = append(s.rest, wire...)
		return false // it has been reported
	case s.fd < 0:
		s.rest = wire
		s.finish()
		return false
	}
	n, err := unix.Write(s.fd, wire)
	for err == unix.EINTR {
		n, err = unix.Write(s.fd, wire)
	}
	if n == len(wire) {
		return false
	}
	s.stuck = err != nil && err != unix.EAGAIN
	s.rest = slices.Clone(wire[max(n, 0):])
	return !s.stuck
}

// finish writes the remainder as soon as there is room. A client that has none for so long is left out from then on.
func (s *socket) finish() {
	const patience = 2 * time.Second
	_ = s.conn.SetWriteDeadline(time.Now().Add(patience)) // fails with the write
	_, err := s.conn.Write(s.rest)
	s.stuck, s.rest = err != nil, nil
}

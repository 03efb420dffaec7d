package load

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// readBuffer is the size of a goroutine's read buffer.
	readBuffer = 16 << 10
	// writeTimeout limits a write: clients send little, so a server that does not accept it is stuck.
	writeTimeout = 10 * time.Second
	// closeFrameTimeout limits the write of the close frame.
	closeFrameTimeout = time.Second
)

// goroutineEngine uses a goroutine per client: on systems other than Linux, for TLS, and where the options ask for it.
type goroutineEngine struct {
	fleet   *Fleet
	ctx     context.Context // the engine's own lifetime
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex // protects conns; only deadlines are set while it is held, which does not block
	conns map[net.Conn]struct{}
}

func newGoroutines(f *Fleet) *goroutineEngine {
	g := &goroutineEngine{fleet: f, conns: make(map[net.Conn]struct{})}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

func (g *goroutineEngine) dial(c *client) { g.running.Go(func() { g.run(c) }) }

// close unblocks all reads and writes. Each goroutine then sends a close frame and closes its connection.
func (g *goroutineEngine) close() {
	g.mu.Lock()
	g.cancel()
	for conn := range g.conns {
		_ = conn.SetDeadline(time.Unix(1, 0))
	}
	g.mu.Unlock()
	g.running.Wait()
}

// run is the goroutine of a client.
func (g *goroutineEngine) run(c *client) {
	conn, err := g.connect(c.index)
	if err == nil {
		defer conn.Close()
		defer g.remove(conn)
		err = g.serve(c, conn)
	}
	if g.ctx.Err() != nil {
		c.sendClose()
		return
	}
	c.connectionEnded(err)
}

func (g *goroutineEngine) connect(i int) (net.Conn, error) {
	d := net.Dialer{Timeout: progressTimeout}
	if from := g.fleet.opt.LocalAddrs; len(from) > 0 {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from[i%len(from)])}
	}
	conn, err := d.DialContext(g.ctx, "tcp", g.fleet.opt.Addr)
	if err != nil {
		return nil, connectError(err, g.fleet.opt.Addr)
	}
	if config := g.fleet.opt.TLS; config != nil {
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(g.ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return secured, nil
	}
	return conn, nil
}

// serve reads until the connection ends or the engine is closed.
func (g *goroutineEngine) serve(c *client, conn net.Conn) error {
	if !g.add(conn) {
		return g.ctx.Err()
	}
	if err := c.startUpgrade(blockingTransport{g.ctx, conn}); err != nil {
		return err
	}
	buffer := make([]byte, readBuffer)
	for c.phase != stalled {
		n, err := conn.Read(buffer)
		if n > 0 {
			if err := c.receive(buffer[:n], time.Now()); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
	<-g.ctx.Done()
	return nil
}

// add registers a connection for close. It returns false if close has been called.
func (g *goroutineEngine) add(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx.Err() != nil {
		return false
	}
	g.conns[conn] = struct{}{}
	return true
}

func (g *goroutineEngine) remove(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, conn)
}

// blockingTransport writes with blocking writes.
type blockingTransport struct {
	ctx  context.Context // the engine's
	conn net.Conn
}

func (l blockingTransport) write(data []byte) error {
	timeout := writeTimeout
	if l.ctx.Err() != nil {
		timeout = closeFrameTimeout
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := l.conn.Write(data)
	return err
}

// connectError returns an error that names the likely cause and the remedy.
func connectError(err error, addr string) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused by " + addr + ": is the server running?")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return errors.New("no local port is free; connect from more local addresses, or wait a minute")
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return errors.New("too many open files; raise the limit: ulimit -n")
	}
	return err
}

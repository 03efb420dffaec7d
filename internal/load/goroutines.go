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
	// readBuffer is what one of many goroutines reads into.
	readBuffer = 16 << 10
	// writeTimeout bounds a write: clients send little, and a server that does not even take that is stuck.
	writeTimeout = 10 * time.Second
	// farewellTimeout bounds the last write of a connection.
	farewellTimeout = time.Second
)

// goroutines is the engine with a goroutine for each client: for every system, and for TLS.
type goroutines struct {
	fleet   *Fleet
	ctx     context.Context //nolint:containedctx // the engine's own lifetime
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex // protects conns; under it deadlines are set, which does not block
	conns map[net.Conn]struct{}
}

func newGoroutines(f *Fleet) *goroutines {
	g := &goroutines{fleet: f, conns: make(map[net.Conn]struct{})}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

func (g *goroutines) dial(c *client) { g.running.Go(func() { g.run(c) }) }

// close makes all that waits return, upon which each goroutine takes leave and closes its connection.
func (g *goroutines) close() {
	g.mu.Lock()
	g.cancel()
	for conn := range g.conns {
		_ = conn.SetDeadline(time.Unix(1, 0))
	}
	g.mu.Unlock()
	g.running.Wait()
}

// run is a client's goroutine.
func (g *goroutines) run(c *client) {
	conn, err := g.connect(c.index)
	if err == nil {
		defer conn.Close()
		defer g.remove(conn)
		err = g.serve(c, conn)
	}
	if g.ctx.Err() != nil {
		c.leave()
		return
	}
	c.over(err)
}

func (g *goroutines) connect(i int) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
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

// serve reads until the connection ends, the engine is closed, or the client stalls and the engine is closed.
func (g *goroutines) serve(c *client, conn net.Conn) error {
	if !g.add(conn) {
		return g.ctx.Err()
	}
	if err := c.connected(blockingLine{g.ctx, conn}); err != nil {
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

// add makes a connection known to close, unless that has been called.
func (g *goroutines) add(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx.Err() != nil {
		return false
	}
	g.conns[conn] = struct{}{}
	return true
}

func (g *goroutines) remove(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, conn)
}

// blockingLine is a line whose writes wait for room.
type blockingLine struct {
	ctx  context.Context //nolint:containedctx // the engine's
	conn net.Conn
}

func (l blockingLine) write(data []byte) error {
	timeout := writeTimeout
	if l.ctx.Err() != nil {
		timeout = farewellTimeout
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := l.conn.Write(data)
	return err
}

// connectError says why a connection does not come about, and what helps.
func connectError(err error, addr string) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("nothing answers at " + addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return errors.New("no local port is free; connect from more local addresses, or wait a minute")
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return errors.New("too many open files; raise the limit: ulimit -n")
	}
	return err
}

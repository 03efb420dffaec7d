package recovery

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

// link forwards TCP connections to a server, and can be cut. Its methods may be called from any number of goroutines.
type link struct {
	upstream string
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex // protects the fields below
	cut   bool
	conns []net.Conn // of both sides, since the last cut
}

func newLink(ctx context.Context, upstream string) (*link, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("recovery: %w", err)
	}
	l := &link{upstream: upstream, listener: listener}
	l.running.Go(func() {
		for {
			down, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.forward(down) })
		}
	})
	return l, nil
}

// set cuts the link, which ends every connection and refuses new ones, or mends it. Nothing passes once it has returned.
func (l *link) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut = cut; cut {
		for _, conn := range l.conns {
			_ = conn.Close()
		}
		l.conns = nil
	}
}

// forward copies both directions until one of them ends.
func (l *link) forward(down net.Conn) {
	defer down.Close()
	up, err := net.Dial("tcp", l.upstream)
	if err != nil {
		return // the server is gone
	}
	defer up.Close()
	if !l.add(down, up) {
		return
	}
	l.running.Go(func() {
		_, _ = io.Copy(up, down)
		_ = up.Close()
	})
	_, _ = io.Copy(down, up)
}

// add notes connections, and reports false if the link is cut.
func (l *link) add(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, conns...)
	return !l.cut
}

func (l *link) close() error {
	err := l.listener.Close()
	l.set(true)
	l.running.Wait()
	return err
}

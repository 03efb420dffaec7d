package recovery

import (
	"context"
	"errors"
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
	conns map[net.Conn]struct{}
}

func newLink(ctx context.Context, upstream string) (*link, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("recovery: %w", err)
	}
	l := &link{upstream: upstream, listener: listener, conns: make(map[net.Conn]struct{})}
	l.running.Go(func() {
		for {
			down, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.forward(ctx, down) })
		}
	})
	return l, nil
}

// forward copies both directions until one of them ends.
func (l *link) forward(ctx context.Context, down net.Conn) {
	up, err := new(net.Dialer).DialContext(ctx, "tcp", l.upstream)
	if err != nil || !l.add(down, up) {
		_ = down.Close()
		if err == nil {
			_ = up.Close()
		}
		return
	}
	end := func() { l.remove(down, up) }
	l.running.Go(func() {
		defer end()
		_, _ = io.Copy(up, down)
	})
	defer end()
	_, _ = io.Copy(down, up)
}

// add reports false if the link is cut.
func (l *link) add(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		if !l.cut {
			l.conns[c] = struct{}{}
		}
	}
	return !l.cut
}

func (l *link) remove(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(l.conns, c)
	}
}

// set cuts the link, which ends every connection and refuses new ones, or mends it.
func (l *link) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	if cut {
		for c := range l.conns {
			_ = c.Close()
		}
	}
}

func (l *link) close() error {
	err := l.listener.Close()
	l.set(true)
	l.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

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
	whole context.Context
	end   context.CancelFunc // of whole, and with it of every connection
}

func newLink(ctx context.Context, upstream string) (*link, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("recovery: %w", err)
	}
	l := &link{upstream: upstream, listener: listener, end: func() {}}
	l.set(false)
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

// set cuts the link, which ends every connection and refuses new ones, or mends it.
func (l *link) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end(); !cut {
		l.whole, l.end = context.WithCancel(context.Background())
	}
}

// forward copies both directions until one of them ends.
func (l *link) forward(down net.Conn) {
	defer down.Close()
	l.mu.Lock()
	ctx := l.whole
	l.mu.Unlock()
	up, err := new(net.Dialer).DialContext(ctx, "tcp", l.upstream)
	if err != nil {
		return // the link is cut, or the server is gone
	}
	end := func() { _, _ = down.Close(), up.Close() }
	defer context.AfterFunc(ctx, end)()
	l.running.Go(func() {
		defer end()
		_, _ = io.Copy(up, down)
	})
	defer end()
	_, _ = io.Copy(down, up)
}

func (l *link) close() error {
	err := l.listener.Close()
	l.set(true)
	l.running.Wait()
	return err
}

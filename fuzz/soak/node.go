package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// node is one manager and server.
type node struct {
	// mu protects the fields below against a restart; it is held for reading while they are used.
	mu      sync.RWMutex
	manager *manager.Manager
	server  *server.Server
	address string
	served  chan error
}

// run starts the node.
func (n *node) run(h *hub) (err error) {
	b, err := h.broker()
	if err != nil {
		return err
	}
	if n.manager, err = manager.New(manager.Options{Broker: b}); err != nil {
		return err
	}
	n.server, err = server.New(server.Options{
		Manager: n.manager, Authorize: server.AuthorizeOpen,
		Authenticate: func(_ context.Context, token string) (server.Identity, error) {
			return server.Identity{UserID: token}, nil
		},
		PingInterval: 2 * time.Second, IdleTimeout: 6 * time.Second, CloseTimeout: time.Second, QueueAge: 2 * time.Second,
		QueueBytes: 128 << 10,
	})
	if err != nil {
		return errors.Join(err, n.manager.Close(context.Background()))
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	n.address, n.served = ln.Addr().String(), make(chan error, 1)
	go func(s *server.Server, served chan error) { served <- s.Serve(ln) }(n.server, n.served)
	return nil
}

// end closes the node.
func (n *node) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := errors.Join(n.server.Close(ctx), n.manager.Close(ctx))
	if ended := <-n.served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// restart replaces the node by a new one.
func (n *node) restart(h *hub) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return errors.Join(n.end(), n.run(h))
}

// reload changes the settings so that all further connections are refused, or back to the defaults.
func (n *node) reload(refuse bool) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var to server.Settings
	if refuse {
		to = server.Settings{MaxConnections: 1, APIKeys: []string{"key-of-a-reloaded-node-0123456789"}}
	}
	return n.server.Reload(to)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

const (
	nodes   = 2
	uploads = 20
	// publishEvery is the pause between the publications of a publisher. Each node has one.
	publishEvery = 5 * time.Millisecond
)

// world is two nodes with their broker, and all that is measured.
type world struct {
	start     time.Time
	hub       *broker.Memory
	nodes     [nodes]*node
	open      atomic.Int64
	delivered atomic.Uint64

	mu    sync.Mutex // protects the fields below
	times []time.Duration
	// failure is the first thing that a well-behaved client must not see.
	failure error
}

// node is one manager and server.
type node struct {
	// mu protects the fields below against a restart; it is held for reading while they are used.
	mu      sync.RWMutex
	manager *manager.Manager
	server  *server.Server
	address string
	served  chan error
}

func newWorld() (*world, error) {
	w := &world{start: time.Now(), hub: broker.NewMemory(broker.MemoryOptions{})}
	for i := range w.nodes {
		w.nodes[i] = new(node)
		if err := w.nodes[i].run(w.hub); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// run starts the node.
func (n *node) run(hub *broker.Memory) (err error) {
	if n.manager, err = manager.New(manager.Options{Broker: hub.Node()}); err != nil {
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
	<-n.served
	return err
}

// restart replaces the node by a new one.
func (n *node) restart(hub *broker.Memory) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return errors.Join(n.end(), n.run(hub))
}

func (w *world) close() {
	for _, n := range w.nodes {
		_ = n.end() // the end of the program
	}
}

// cycle lets the audience grow for half of the time and shrink for the other half.
func (w *world) cycle(ctx context.Context, d time.Duration, audience int) (during []sample) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var running sync.WaitGroup
	for i := range w.nodes {
		running.Go(func() { w.publish(ctx, w.nodes[i]) })
	}
	running.Go(func() { w.restartOne(ctx, d/2) })
	for i := range audience {
		arrives := d / 2 * time.Duration(i) / time.Duration(audience)
		running.Go(func() {
			if pause(ctx, arrives) {
				w.live(ctx, i, d-2*arrives)
			}
		})
	}
	const samples = 10
	for ctx.Err() == nil {
		pause(ctx, d/samples)
		during = append(during, w.measure(false))
	}
	running.Wait()
	return during
}

// pause reports whether the time has passed before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// publish publishes to random uploads through a node.
func (w *world) publish(ctx context.Context, n *node) {
	for pause(ctx, publishEvery) {
		id := fmt.Sprint("upload-", rand.IntN(uploads)) //nolint:gosec // load
		padding := rand.IntN(2000)                      //nolint:gosec // load
		text := fmt.Sprintf(`{"action":"note","sent":%d,"pad":"%0*d"}`, time.Now().UnixNano(), padding, 0)
		message, err := manager.Parse(id, []byte(text), time.Now())
		if err != nil {
			w.fail(err)
			return
		}
		n.mu.RLock()
		_, err = n.manager.Publish(ctx, id, message)
		n.mu.RUnlock()
		// A node that has just started has not reached the broker yet.
		if err != nil && ctx.Err() == nil && !errors.Is(err, manager.ErrUnavailable) {
			w.fail(fmt.Errorf("publishing: %w", err))
		}
	}
}

// restartOne restarts a node once.
func (w *world) restartOne(ctx context.Context, after time.Duration) {
	if pause(ctx, after) {
		if err := w.nodes[rand.IntN(nodes)].restart(w.hub); err != nil { //nolint:gosec // load
			w.fail(fmt.Errorf("restarting a node: %w", err))
		}
	}
}

// settle waits until nothing of the clients is left on the nodes, and measures.
func (w *world) settle(ctx context.Context) (sample, error) {
	deadline := time.Now().Add(30 * time.Second)
	for _, n := range w.nodes {
		for {
			s := n.server.Stats()
			if s.Open == 0 && s.Connections == 0 && s.Users == 0 && s.Subscriptions == 0 {
				break
			}
			if time.Now().After(deadline) || !pause(ctx, 10*time.Millisecond) {
				return sample{}, fmt.Errorf("left over on a node: %d sockets, %d connections, %d users, %d subscriptions",
					s.Open, s.Connections, s.Users, s.Subscriptions)
			}
		}
	}
	pause(ctx, 200*time.Millisecond) // goroutines that have nothing to do any more end
	w.mu.Lock()
	failure := w.failure
	w.mu.Unlock()
	return w.measure(true), failure
}

func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure == nil {
		w.failure = err
	}
}

// note records the time from the publication of a message to its arrival.
func (w *world) note(took time.Duration) {
	w.delivered.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.times = append(w.times, took)
}

// latency returns the 99th percentile since the last call.
func (w *world) latency() time.Duration {
	w.mu.Lock()
	times := w.times
	w.times = nil
	w.mu.Unlock()
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[len(times)*99/100]
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/manager"
)

const (
	nodes   = 2
	uploads = 20
)

// world is two nodes with their broker, and all that is measured.
type world struct {
	start     time.Time
	hub       *hub
	nodes     [nodes]*node
	topics    [uploads]topic
	open      atomic.Int64
	delivered atomic.Uint64

	mu    sync.Mutex // protects the fields below
	times []time.Duration
	// failure is the first thing that a client must not see.
	failure error
}

// topic is the publisher's state of an upload.
type topic struct {
	// tried is the number of the newest message, and stored the number of the newest one that the broker certainly has.
	tried, stored int
}

func newWorld(kind string) (*world, error) {
	w := &world{start: time.Now()}
	var err error
	if w.hub, err = newHub(kind); err != nil {
		return nil, err
	}
	for i := range w.nodes {
		w.nodes[i] = new(node)
		if err := w.nodes[i].run(w.hub); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) close() error {
	var err error
	for _, n := range w.nodes {
		err = errors.Join(err, n.end())
	}
	return errors.Join(err, w.hub.close())
}

// cycle lets the audience grow for half of the time and shrink for the other half. number counts the cycles.
func (w *world) cycle(ctx context.Context, number int, c config) (during []sample) {
	d := c.duration / time.Duration(c.cycles)
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var running sync.WaitGroup
	for i := range w.nodes {
		running.Go(func() { w.publish(ctx, i, time.Second*nodes/time.Duration(c.rate)) })
	}
	running.Go(func() { w.disturb(ctx, number, d) })
	for i := range c.audience {
		arrives := d / 2 * time.Duration(i) / time.Duration(c.audience)
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

// disturb applies one fault after the other in a cycle that takes the time d. Their effect depends on the number of the
// cycle.
func (w *world) disturb(ctx context.Context, number int, d time.Duration) {
	reload := func(refuse bool) func() error {
		return func() error { return errors.Join(w.nodes[0].reload(refuse), w.nodes[1].reload(refuse)) }
	}
	for _, f := range []struct {
		name  string
		fault func() error
	}{
		{"reloading to settings that refuse connections", reload(true)},
		{"reloading the first settings", reload(false)},
		{"restarting the broker", func() error { return w.hub.restart(ctx, d/50, number%2 == 1) }},
		{"restarting a node", func() error { return w.nodes[number%nodes].restart(w.hub) }},
	} {
		if !pause(ctx, d/6) {
			return
		}
		if err := f.fault(); err != nil {
			w.fail(fmt.Errorf("%s: %w", f.name, err))
		}
	}
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

// publish publishes to random uploads through a node. Each upload belongs to one node, so that its messages have an
// order.
func (w *world) publish(ctx context.Context, index int, every time.Duration) {
	n := w.nodes[index]
	for pause(ctx, every) {
		number := rand.IntN(uploads/nodes)*nodes + index
		padding := rand.IntN(2000)
		id, t := fmt.Sprint("upload-", number), &w.topics[number]
		t.tried++
		text := fmt.Sprintf(`{"action":"note","sent":%d,"n":%d,"stored":%d,"pad":"%0*d"}`,
			time.Now().UnixNano(), t.tried, t.stored, padding, 0)
		message, err := manager.Parse(id, []byte(text), time.Now())
		if err != nil {
			w.fail(err)
			return
		}
		n.mu.RLock()
		_, err = n.manager.Publish(ctx, id, message)
		n.mu.RUnlock()
		switch {
		case err == nil:
			t.stored = t.tried
		case ctx.Err() == nil && !errors.Is(err, manager.ErrUnavailable): // which the broker may be
			w.fail(fmt.Errorf("publishing: %w", err))
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

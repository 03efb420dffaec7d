package recovery

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-go/shoal/internal/load"
	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
)

// several calls do with the numbers below n, some at a time, and returns the first error.
func several(callers, n int, do func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(callers)
	for i := range n {
		g.Go(func() error { return do(i) })
	}
	return g.Wait()
}

// uploadsPerUser is how many uploads one connection follows.
const uploadsPerUser = 500

// followers are the connections of the node that is cut off. They note the newest message of each upload, and the times of
// live messages, apart for uploads that change during the cut.
type followers struct {
	newest       []atomic.Uint64 // number of the newest message, by upload
	disorder     atomic.Int64
	changes      func(upload int) bool // whether an upload changes during the cut
	from         atomic.Int64          // messages that were sent earlier do not count, in nanoseconds of Unix time
	live, behind *load.Times
}

func newFollowers(uploads int, changes func(int) bool) *followers {
	f := &followers{newest: make([]atomic.Uint64, uploads), changes: changes, live: load.NewTimes(), behind: load.NewTimes()}
	f.measureFrom(time.Now())
	return f
}

// measureFrom removes the times, and counts messages that are sent from now on.
func (f *followers) measureFrom(at time.Time) {
	f.from.Store(at.UnixNano())
	f.live.Reset()
	f.behind.Reset()
}

// follow subscribes to all uploads.
func (f *followers) follow(ctx context.Context, m *manager.Manager) error {
	conns := make([]*connection, (len(f.newest)+uploadsPerUser-1)/uploadsPerUser)
	user := func(i int) string { return "user-" + strconv.Itoa(i) }
	for i := range conns {
		conns[i] = &connection{f}
		if err := m.Connect(user(i), conns[i]); err != nil {
			return err
		}
	}
	return several(256, len(f.newest), func(i int) error {
		who := i / uploadsPerUser
		if err := m.SubscribeConn(ctx, user(who), conns[who], message.Channel(i), manager.SubscribeOptions{}); err != nil {
			return fmt.Errorf("recovery: following uploads: %w", err)
		}
		return nil
	})
}

// connection is one client.
type connection struct{ *followers }

// Send notes a message.
func (c *connection) Send(m *manager.Frame) manager.Outcome {
	now := time.Now().UnixNano()
	upload, err := strconv.Atoi(m.UploadID()[1:])
	sent, number, ok := message.Read(m.Body())
	if err != nil || !ok {
		return manager.Queued
	}
	// A snapshot may repeat the newest message; the lock of the upload is held, so only this goroutine stores.
	if old := c.newest[upload].Load(); number > old {
		if old != 0 && number != old+1 {
			c.disorder.Add(1)
		}
		c.newest[upload].Store(number)
	}
	if sent >= c.from.Load() {
		times := c.live
		if c.changes(upload) {
			times = c.behind
		}
		times.Add(now - sent)
	}
	return manager.Queued
}

// Close is not expected; a follower that was closed never becomes current.
func (c *connection) Close(manager.CloseReason) {}

// publisher publishes numbered messages on the node that keeps its broker.
type publisher struct {
	manager *manager.Manager
	bytes   int
	numbers []atomic.Uint64 // of the newest message, by upload
}

// publish publishes the next message of an upload. One goroutine at a time may publish to an upload.
func (p *publisher) publish(ctx context.Context, upload int, planned time.Time) error {
	channel := message.Channel(upload)
	number := p.numbers[upload].Load() + 1
	next := message.Message{Channel: channel, Sent: planned.UnixNano(), Number: number, Size: p.bytes}
	if err := nodes.Publish(ctx, p.manager, next); err != nil {
		return fmt.Errorf("recovery: publishing: %w", err)
	}
	p.numbers[upload].Store(number)
	return nil
}

// each publishes to uploads, several at a time.
func (p *publisher) each(ctx context.Context, uploads []int) error {
	return several(64, len(uploads), func(i int) error { return p.publish(ctx, uploads[i], time.Now()) })
}

// live publishes at a fixed rate to a few uploads in turn, until it is stopped. Messages have their planned time, so that a
// delay of the publisher counts. Each upload has a goroutine of its own.
type live struct {
	pausing atomic.Bool // uploads that do not change are left out
	cancel  context.CancelFunc
	running errgroup.Group
}

// goLive starts to publish rate messages per second.
func goLive(ctx context.Context, p *publisher, uploads []int, rate float64, changes func(int) bool) *live {
	ctx, cancel := context.WithCancel(ctx)
	l := &live{cancel: cancel}
	interval := time.Duration(float64(time.Second) * float64(len(uploads)) / rate)
	start := time.Now()
	for i, upload := range uploads {
		planned := start.Add(interval * time.Duration(i) / time.Duration(len(uploads)))
		l.running.Go(func() error {
			for ; pause(ctx, time.Until(planned)); planned = planned.Add(interval) {
				if l.pausing.Load() && !changes(upload) {
					continue
				}
				if err := p.publish(context.WithoutCancel(ctx), upload, planned); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return l
}

// stop ends it and returns its first error.
func (l *live) stop() error {
	l.cancel()
	return l.running.Wait()
}

// pause waits, and reports whether ctx has not ended.
func pause(ctx context.Context, wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}

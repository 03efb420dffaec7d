package recovery

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/internal/load"
	"github.com/shoal-go/shoal/manager"
)

// traffic are the messages that the publishing node has published and the connections of the following node have received, by
// upload and number. Its methods may be called from any number of goroutines, publish from one at a time for an upload.
type traffic struct {
	Options
	published, received []atomic.Uint64 // number of the newest message, by upload
	disorder            atomic.Int64
	from                atomic.Int64 // messages that were sent earlier are not timed, in nanoseconds of Unix time
	// live are the times of messages, and behind those to uploads that change during the cut.
	live, behind *load.Times
	pausing      atomic.Bool // live messages are only for uploads that change
}

func newTraffic(o Options) *traffic {
	t := &traffic{
		Options: o, published: make([]atomic.Uint64, o.Uploads), received: make([]atomic.Uint64, o.Uploads),
		live: load.NewTimes(), behind: load.NewTimes(),
	}
	t.measureFrom(time.Now())
	return t
}

// changes reports whether an upload changes during the cut: the changed ones lie evenly among all.
func (t *traffic) changes(upload int) bool {
	return int(float64(upload+1)*t.Changed) > int(float64(upload)*t.Changed)
}

// measureFrom removes the times, and counts messages that are sent from now on.
func (t *traffic) measureFrom(at time.Time) {
	t.from.Store(at.UnixNano())
	t.live.Reset()
	t.behind.Reset()
}

// newest returns the number of the newest published message of each upload.
func (t *traffic) newest() []uint64 {
	numbers := make([]uint64, len(t.published))
	for i := range numbers {
		numbers[i] = t.published[i].Load()
	}
	return numbers
}

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

// follow subscribes to all uploads.
func (t *traffic) follow(ctx context.Context, m *manager.Manager) error {
	conns := make([]*connection, (len(t.received)+uploadsPerUser-1)/uploadsPerUser)
	user := func(i int) string { return "user-" + strconv.Itoa(i) }
	for i := range conns {
		conns[i] = &connection{t}
		if err := m.Connect(user(i), conns[i]); err != nil {
			return err
		}
	}
	return several(256, len(t.received), func(i int) error {
		who := i / uploadsPerUser
		if err := m.SubscribeConn(ctx, user(who), conns[who], message.Channel(i), manager.SubscribeOptions{}); err != nil {
			return fmt.Errorf("recovery: following uploads: %w", err)
		}
		return nil
	})
}

// connection is one client.
type connection struct{ *traffic }

// Send notes a message.
func (c *connection) Send(m *manager.Frame) manager.Outcome {
	now := time.Now().UnixNano()
	upload, err := strconv.Atoi(m.UploadID()[1:])
	sent, number, ok := message.Read(m.Body())
	if err != nil || !ok {
		return manager.Queued
	}
	// A snapshot may repeat the newest message; the lock of the upload is held, so only this goroutine stores.
	if old := c.received[upload].Load(); number > old {
		if old != 0 && number != old+1 {
			c.disorder.Add(1)
		}
		c.received[upload].Store(number)
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

// publish publishes the next message of an upload.
func (t *traffic) publish(ctx context.Context, m *manager.Manager, upload int, planned time.Time) error {
	number := t.published[upload].Load() + 1
	next := message.Message{Channel: message.Channel(upload), Sent: planned.UnixNano(), Number: number, Size: t.Bytes}
	if err := nodes.Publish(ctx, m, next); err != nil {
		return fmt.Errorf("recovery: publishing: %w", err)
	}
	t.published[upload].Store(number)
	return nil
}

// publishEach publishes to uploads, several at a time.
func (t *traffic) publishEach(ctx context.Context, m *manager.Manager, uploads []int) error {
	return several(64, len(uploads), func(i int) error { return t.publish(ctx, m, uploads[i], time.Now()) })
}

// goLive publishes Rate messages per second to a few uploads in turn, until the function that it returns is called, which returns
// the first error. Messages have their planned time, so that a delay of the publisher counts. Each upload has a goroutine of its
// own.
func (t *traffic) goLive(ctx context.Context, m *manager.Manager, uploads []int) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var running errgroup.Group
	interval := time.Duration(float64(time.Second) * float64(len(uploads)) / t.Rate)
	start := time.Now()
	for i, upload := range uploads {
		planned := start.Add(interval * time.Duration(i) / time.Duration(len(uploads)))
		running.Go(func() error {
			for ; worker.Sleep(ctx, time.Until(planned)) == nil; planned = planned.Add(interval) {
				if t.pausing.Load() && !t.changes(upload) {
					continue
				}
				if err := t.publish(context.WithoutCancel(ctx), m, upload, planned); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return func() error {
		cancel()
		return running.Wait()
	}
}

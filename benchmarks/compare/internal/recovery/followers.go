package recovery

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/shoal-go/shoal/manager"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// uploadsPerUser is how many uploads one connection follows.
const uploadsPerUser = 500

// followers are the connections of the node that is cut off. They note the newest message of each upload, and the time
// that live messages took.
type followers struct {
	newest   []atomic.Uint64 // number of the newest message, by upload
	disorder atomic.Int64
	changes  func(upload int) bool // whether an upload changes during the cut

	mu     sync.Mutex // protects the fields below
	from   int64      // messages sent earlier do not count, in nanoseconds of Unix time
	live   *hdrhistogram.Histogram
	behind *hdrhistogram.Histogram // of uploads that changed during the cut
}

func newFollowers(uploads int, changes func(int) bool) *followers {
	f := &followers{newest: make([]atomic.Uint64, uploads), changes: changes}
	f.measureFrom(time.Now())
	return f
}

// measureFrom forgets the times, and counts messages that are sent from now on.
func (f *followers) measureFrom(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from = at.UnixNano()
	f.live = hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
	f.behind = hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
}

// Latency are percentiles of the time from the planned moment of publishing to the connection.
type Latency struct {
	Messages      int64
	P50, P99, Max time.Duration
}

func (f *followers) latencies() (live, behind Latency) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return latencyOf(f.live), latencyOf(f.behind)
}

func latencyOf(h *hdrhistogram.Histogram) Latency {
	at := func(percent float64) time.Duration {
		return time.Duration(h.ValueAtPercentile(percent)) * time.Microsecond
	}
	return Latency{h.TotalCount(), at(50), at(99), time.Duration(h.Max()) * time.Microsecond}
}

// follow subscribes to all uploads, with several calls at a time.
func (f *followers) follow(ctx context.Context, m *manager.Manager) error {
	const callers = 256
	uploads := make(chan int)
	failed := make(chan error, callers)
	conns := make([]*connection, (len(f.newest)+uploadsPerUser-1)/uploadsPerUser)
	for i := range conns {
		conns[i] = &connection{f}
		if err := m.Connect(userOf(i), conns[i]); err != nil {
			return err
		}
	}
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			var err error
			for i := range uploads {
				if err == nil {
					who := i / uploadsPerUser
					err = m.SubscribeConn(ctx, userOf(who), conns[who], message.Channel(i), manager.SubscribeOptions{})
				}
			}
			failed <- err
		})
	}
	for i := range f.newest {
		uploads <- i
	}
	close(uploads)
	running.Wait()
	for range callers {
		if err := <-failed; err != nil {
			return fmt.Errorf("recovery: following uploads: %w", err)
		}
	}
	return nil
}

func userOf(i int) string { return "user-" + strconv.Itoa(i) }

// connection is one client.
type connection struct{ *followers }

// Send notes a message.
func (c *connection) Send(m *manager.Frame) manager.Outcome {
	now := time.Now().UnixNano()
	upload, err := strconv.Atoi(m.UploadID()[1:])
	sent, isMessage := message.SentAt(m.Body())
	number, isNumber := message.NumberOf(m.Body())
	if err != nil || !isMessage || !isNumber {
		return manager.Queued
	}
	// A snapshot may repeat the newest message; the lock of the upload is held, so nobody else stores.
	if old := c.newest[upload].Load(); number > old {
		if old != 0 && number != old+1 {
			c.disorder.Add(1)
		}
		c.newest[upload].Store(number)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if sent >= c.from {
		h := c.live
		if c.changes(upload) {
			h = c.behind
		}
		_ = h.RecordValue((now - sent) / int64(time.Microsecond)) // longer than a minute is not waited for
	}
	return manager.Queued
}

// Close is not expected; a follower that was closed is behind without end.
func (c *connection) Close(manager.CloseReason) {}

package load

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Fleet is a number of clients connected to one server. Its methods may be called from any number of goroutines.
type Fleet struct {
	opt        Options
	engine     engine
	handshake  *handshake
	mask       [4]byte
	clients    []client
	counts     *counters
	latencies  []*Times
	readyTimes *Times
	closing    sync.Once

	mu sync.Mutex // protects the fields below; nothing is called while it is held
	// progress counts the clients by phase; changed notifies Open of changes.
	progress progress
	changed  chan struct{}
	// gone is closed when all clients that read have been ready and have ended.
	gone chan struct{}
}

// progress counts clients by phase.
type progress struct {
	ready, failed, closed int
	first                 *endError // cause of the first end
}

// endError is the end of a client's connection.
type endError struct {
	index int
	err   error
}

func (e *endError) Error() string { return fmt.Sprintf("client %d: %v", e.index, e.err) }

func (e *endError) Unwrap() error { return e.err }

func newFleet(o Options) *Fleet {
	f := &Fleet{
		opt:        o,
		handshake:  newHandshake(o.Addr, o.Dialect),
		clients:    make([]client, o.Connections),
		counts:     newCounts(time.Now()),
		latencies:  make([]*Times, o.Pollers),
		readyTimes: NewTimes(),
		changed:    make(chan struct{}, 1),
		gone:       make(chan struct{}),
	}
	_, _ = rand.Read(f.mask[:]) // never fails
	for i := range f.latencies {
		f.latencies[i] = NewTimes()
	}
	for i := range f.clients {
		f.clients[i] = client{fleet: f, index: i, latency: f.latencies[i%o.Pollers]}
	}
	return f
}

// Counts returns the counters since Open.
func (f *Fleet) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Counts{
		Messages:  f.counts.messages.Load(),
		Bytes:     f.counts.bytes.Load(),
		ReadCalls: f.counts.readCalls.Load(),
		Closed:    f.progress.closed,
	}
}

// WaitMessages blocks until the clients have received total messages since Open. It returns the time of the read that
// completed them, or of the latest message if they had been received before the call. The error is that of ctx, or
// reports that all connections have ended.
func (f *Fleet) WaitMessages(ctx context.Context, total uint64) (last time.Time, err error) {
	w := f.counts.wait(total)
	defer f.counts.removeWaiter(w)
	select {
	case last = <-w.reached:
		return last, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-f.gone:
		err = f.Ended()
	}
	select {
	case last = <-w.reached:
		return last, nil
	default:
		return f.counts.last(), fmt.Errorf("load: %d of %d messages received: %w", f.counts.messages.Load(), total, err)
	}
}

// Ended returns an error with the number of connections that have ended before Close and the first cause, or nil.
func (f *Fleet) Ended() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.progress.closed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d connections have ended, the first: %w",
		f.progress.closed, len(f.clients), f.progress.first)
}

// Latency returns a copy of the histogram of the times between planned send and receipt, in nanoseconds, since Open or
// ResetLatency.
func (f *Fleet) Latency() *hdrhistogram.Histogram {
	sum := newHistogram()
	for _, r := range f.latencies {
		r.addTo(sum)
	}
	return sum
}

// ResetLatency clears the histogram of Latency.
func (f *Fleet) ResetLatency() {
	for _, r := range f.latencies {
		r.Reset()
	}
}

// ReadyTimes returns a copy of the histogram of the times between dial and ready, in nanoseconds.
func (f *Fleet) ReadyTimes() *hdrhistogram.Histogram {
	sum := newHistogram()
	f.readyTimes.addTo(sum)
	return sum
}

// Close closes all connections and blocks until the goroutines of the fleet have ended: on Linux without waiting for
// the server, otherwise for a few seconds at most. Further calls have no effect.
func (f *Fleet) Close() { f.closing.Do(f.engine.close) }

// clientReady counts another ready client.
func (f *Fleet) clientReady(took time.Duration) {
	f.readyTimes.Add(int64(took))
	if f.opt.OnReady != nil { // OnReady must have returned before Open does
		f.opt.OnReady()
	}
	f.mu.Lock()
	f.progress.ready++
	f.mu.Unlock()
	f.notifyOpen()
}

// clientEnded counts a client whose connection has ended, by the phase in which it ended.
func (f *Fleet) clientEnded(index int, was phase, err error) {
	f.mu.Lock()
	if f.progress.first == nil {
		f.progress.first = &endError{index, err}
	}
	if was == receiving {
		f.progress.closed++
		if f.progress.closed == len(f.clients)-f.opt.Stalled {
			close(f.gone)
		}
	} else {
		f.progress.failed++
	}
	f.mu.Unlock()
	f.notifyOpen()
}

func (f *Fleet) notifyOpen() {
	select {
	case f.changed <- struct{}{}:
	default: // Open has not yet received the previous notification
	}
}

func (f *Fleet) snapshot() progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.progress
}

package load

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Fleet is a number of clients that are connected to one server. Its methods may be called from any number of
// goroutines.
type Fleet struct {
	opt        Options
	engine     engine
	handshake  *handshake
	mask       [4]byte
	clients    []client
	counts     *counts
	latencies  []*recorder
	readyTimes *recorder
	closing    sync.Once

	mu sync.Mutex // protects what follows; nothing is called under it
	// state is how far the clients have come, and changed tells Open of another state.
	state   state
	changed chan struct{}
	// gone is closed when every client that reads has been ready and has ended.
	gone chan struct{}
}

// state is how many clients are where.
type state struct {
	ready, failed, closed int
	first                 *clientError // the first end of a connection
}

// clientError is what ended a client's connection.
type clientError struct {
	index int
	err   error
}

func (e *clientError) Error() string { return fmt.Sprintf("client %d: %v", e.index, e.err) }

func (e *clientError) Unwrap() error { return e.err }

func newFleet(o Options) *Fleet {
	f := &Fleet{
		opt:        o,
		handshake:  newHandshake(o.Addr, o.Dialect),
		clients:    make([]client, o.Connections),
		counts:     newCounts(time.Now()),
		latencies:  make([]*recorder, o.Pollers),
		readyTimes: newRecorder(),
		changed:    make(chan struct{}, 1),
		gone:       make(chan struct{}),
	}
	_, _ = rand.Read(f.mask[:]) // never fails
	for i := range f.latencies {
		f.latencies[i] = newRecorder()
	}
	for i := range f.clients {
		f.clients[i] = client{fleet: f, index: i, latency: f.latencies[i%o.Pollers]}
	}
	return f
}

// Counts returns what has been received so far.
func (f *Fleet) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Counts{
		Messages:  f.counts.messages.Load(),
		Bytes:     f.counts.bytes.Load(),
		ReadCalls: f.counts.readCalls.Load(),
		Closed:    f.state.closed,
	}
}

// WaitMessages blocks until the clients together have received so many messages since Open, and returns when
// the read that completed them returned; if they had been received before the call, when the latest message
// was. The error is that of ctx, or says that all connections have ended before.
func (f *Fleet) WaitMessages(ctx context.Context, total uint64) (last time.Time, err error) {
	w := f.counts.wait(total)
	defer f.counts.forget(w)
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
		return f.counts.last(), fmt.Errorf("load: %d of %d messages have come: %w", f.counts.messages.Load(), total, err)
	}
}

// Ended returns what ended the first of the connections that have ended, other than by Close, with their
// number; nil if none has.
func (f *Fleet) Ended() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.closed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d connections have ended, the first: %w", f.state.closed, len(f.clients), f.state.first)
}

// Latency returns a copy of the times from when a message was meant to be sent until it was received, in
// nanoseconds, of all that came since Open or ResetLatency.
func (f *Fleet) Latency() *hdrhistogram.Histogram {
	sum := newHistogram()
	for _, r := range f.latencies {
		r.addTo(sum)
	}
	return sum
}

// ResetLatency forgets the latencies so far.
func (f *Fleet) ResetLatency() {
	for _, r := range f.latencies {
		r.reset()
	}
}

// ReadyTimes returns a copy of the times that the clients took from the start of dialling until they were
// ready, in nanoseconds.
func (f *Fleet) ReadyTimes() *hdrhistogram.Histogram {
	sum := newHistogram()
	f.readyTimes.addTo(sum)
	return sum
}

// Close ends all connections, and blocks until the goroutines of the fleet have ended: on Linux without waiting
// for the server, otherwise for some seconds at most. Further calls have no effect.
func (f *Fleet) Close() { f.closing.Do(f.engine.close) }

// isReady notes that another client is ready.
func (f *Fleet) isReady(took time.Duration) {
	f.readyTimes.record(int64(took))
	if f.opt.OnReady != nil { // before Open can return
		f.opt.OnReady()
	}
	f.mu.Lock()
	f.state.ready++
	f.mu.Unlock()
	f.tellOpen()
}

// hasEnded notes that a client's connection has ended in a phase.
func (f *Fleet) hasEnded(index int, was phase, err error) {
	f.mu.Lock()
	if f.state.first == nil {
		f.state.first = &clientError{index, err}
	}
	if was == receiving {
		f.state.closed++
		if f.state.closed == len(f.clients)-f.opt.Stalled {
			close(f.gone)
		}
	} else {
		f.state.failed++
	}
	f.mu.Unlock()
	f.tellOpen()
}

func (f *Fleet) tellOpen() {
	select {
	case f.changed <- struct{}{}:
	default: // it has yet to look at what was told before
	}
}

func (f *Fleet) current() state {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

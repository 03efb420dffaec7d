package manager

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// Tracer follows a sample of the publications through the nodes. Its methods are called from many goroutines, without
// any lock, and must return at once. They must not publish: a later message of the upload may have to wait for them.
// Package server/shoaltrace implements it with OpenTelemetry.
type Tracer interface {
	// Publish begins the span of a publication to an upload. ctx is Manager.Publish's. nil: the publication is
	// not sampled, and costs nothing from here on.
	Publish(ctx context.Context, uploadID string) Span
	// Broker begins the span of the call that hands the message to the broker. parent is the trace context of the span
	// of the publication.
	Broker(parent, uploadID string) Span
	// Delivered reports the delivery of a traced message on this node, after its end.
	Delivered(d TracedDelivery)
}

// Span is a part of a publication that has begun.
type Span interface {
	// TraceContext returns the value of a W3C traceparent header with the span as the parent.
	TraceContext() string
	// End ends the span with the position of the message and the error of the publication.
	End(at Position, err error)
}

// TracedDelivery is the delivery of a traced message on one node.
type TracedDelivery struct {
	// Parent is the trace context that came with the message. It may come from another program, and be malformed.
	Parent string
	// UploadID and Offset are the message's.
	UploadID string
	Offset   uint64
	// Arrived is when the message came from the broker or was published here, and Sent when it had been queued at all
	// connections.
	Arrived, Sent time.Time
	// Connections is the number of connections that the message was queued at, Written how many of them have handed it
	// to the kernel: fewer if a newer state has replaced it, a connection has ended or the client is slow. FirstWritten
	// and LastWritten are zero if none has.
	Connections, Written      int
	FirstWritten, LastWritten time.Time
}

const (
	// maxTraced bounds the traced messages that have not been written. Beyond it the deliveries of sampled messages are
	// not reported.
	maxTraced = 1024
	// tracedPatience is how long a traced message may take to be written to all connections before it is reported.
	tracedPatience = 15 * time.Second
	// tracedCheck is the interval of looking for messages that are over it.
	tracedCheck = time.Second
)

// tracing follows traced messages from their arrival until they have been written. A nil tracing traces nothing.
type tracing struct {
	tracer Tracer
	guard  *guard
	done   chan *tracedMessage
	stop   chan struct{}
	ended  sync.WaitGroup

	// mu protects open. It may be acquired under any lock of this package, and none is acquired under it.
	mu   sync.RWMutex
	open map[*Frame]*tracedMessage
}

// tracedMessage is a message that is being written.
type tracedMessage struct {
	TracedDelivery
	// expected is the number of connections that will write it, -1 until it is known.
	expected atomic.Int64
	written  atomic.Int64
	// first and last are the times of the first and the last write in nanoseconds since 1970, 0 before.
	first, last atomic.Int64
}

// newTracing returns nil without a tracer.
func newTracing(tracer Tracer, g *guard) *tracing {
	if tracer == nil {
		return nil
	}
	t := &tracing{
		tracer: tracer, guard: g, open: make(map[*Frame]*tracedMessage),
		done: make(chan *tracedMessage, maxTraced), stop: make(chan struct{}),
	}
	t.ended.Go(t.run)
	return t
}

// publish begins the span of a publication, nil if it is not sampled.
func (t *tracing) publish(ctx context.Context, uploadID string) (span Span) {
	if t == nil {
		return nil
	}
	defer t.guard.recovered("Publish", t.tracer)
	return t.tracer.Publish(ctx, uploadID)
}

// context returns the trace context of a span, "" without one.
func (t *tracing) context(s Span) (trace string) {
	if s == nil {
		return ""
	}
	defer t.guard.recovered("TraceContext", s)
	return s.TraceContext()
}

// end ends a span, if there is one.
func (t *tracing) end(s Span, at Position, err error) {
	if s != nil {
		defer t.guard.recovered("End", s)
		s.End(at, err)
	}
}

// broker begins the span of a broker call, and returns the context of the call that carries it to the other nodes.
func (t *tracing) broker(ctx context.Context, parent, uploadID string) (context.Context, Span) {
	if t == nil || parent == "" {
		return ctx, nil
	}
	var span Span
	t.guard.call("Broker", t.tracer, func() { span = t.tracer.Broker(parent, uploadID) })
	if span == nil {
		return ctx, nil
	}
	return broker.WithTrace(ctx, t.context(span)), span
}

// follow returns a frame that is followed from now on if the message came with a trace context, else the same frame.
// Its upload is locked.
func (t *tracing) follow(f *Frame, parent string) *Frame {
	if t == nil || parent == "" {
		return f
	}
	return t.followTraced(f, parent)
}

func (t *tracing) followTraced(f *Frame, parent string) *Frame {
	m := &tracedMessage{TracedDelivery: TracedDelivery{
		Parent: parent, UploadID: f.UploadID(), Offset: f.Offset(), Arrived: time.Now(),
	}}
	m.expected.Store(-1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open) >= maxTraced {
		return f
	}
	f = f.WithTrace()
	t.open[f] = m
	return f
}

// sent notes at how many connections a frame has been queued. Its upload is locked.
func (t *tracing) sent(f *Frame, connections int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.open[f]
	if m == nil {
		return
	}
	m.Sent, m.Connections = time.Now(), connections
	m.expected.Store(int64(connections))
	if m.complete() {
		t.reportLocked(f, m)
	}
}

// sentAll is sent for frames that were sent together to an upload's receivers, whose outcomes are not known apart.
func (t *tracing) sentAll(frames []*Frame, receivers []receiver) {
	if t == nil {
		return
	}
	for _, f := range frames {
		if f.Traced() {
			t.sent(f, connected(receivers))
		}
	}
}

// wrote notes that a connection has handed a frame to the kernel.
func (t *tracing) wrote(f *Frame) {
	t.mu.RLock()
	m := t.open[f]
	t.mu.RUnlock()
	if m == nil {
		return // a recovery has written it again
	}
	now := time.Now().UnixNano()
	m.first.CompareAndSwap(0, now)
	m.last.Store(now)
	m.written.Add(1)
	if m.complete() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.reportLocked(f, m)
	}
}

// complete reports whether all connections have written the message.
func (m *tracedMessage) complete() bool {
	expected := m.expected.Load()
	return expected >= 0 && m.written.Load() >= expected
}

// reportLocked queues a message for its report, once.
func (t *tracing) reportLocked(f *Frame, m *tracedMessage) {
	if t.open[f] != m {
		return
	}
	delete(t.open, f)
	select {
	case t.done <- m:
	default: // the tracer hangs
	}
}

// run reports messages until stop is closed, and then the rest.
func (t *tracing) run() {
	tick := time.NewTicker(tracedCheck)
	defer tick.Stop()
	for {
		select {
		case m := <-t.done:
			t.deliver(m)
		case now := <-tick.C:
			t.expire(now.Add(-tracedPatience))
		case <-t.stop:
			t.expire(time.Now())
			for len(t.done) > 0 {
				t.deliver(<-t.done)
			}
			return
		}
	}
}

// deliver reports a message to the tracer.
func (t *tracing) deliver(m *tracedMessage) {
	t.guard.call("Delivered", t.tracer, func() { t.tracer.Delivered(m.delivery()) })
}

// expire reports the messages that arrived before a time.
func (t *tracing) expire(before time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for f, m := range t.open {
		if !m.Arrived.After(before) {
			t.reportLocked(f, m)
		}
	}
}

// close reports all messages and ends the goroutine.
func (t *tracing) close() {
	if t != nil {
		close(t.stop)
		t.ended.Wait()
	}
}

// delivery returns the report of a message.
func (m *tracedMessage) delivery() TracedDelivery {
	d := m.TracedDelivery
	d.Written = min(int(m.written.Load()), d.Connections)
	if d.Written > 0 {
		d.FirstWritten, d.LastWritten = time.Unix(0, m.first.Load()), time.Unix(0, m.last.Load())
	}
	return d
}

// Written returns the function that a Conn calls with each frame that it has handed to the kernel, and for which
// Frame.Traced reports true. It may be called from any number of goroutines and does not block. It is nil without
// Options.Tracer.
func (m *Manager) Written() func(*Frame) {
	if m.checkCreated() != nil || m.tracing == nil {
		return nil
	}
	return m.tracing.wrote
}

package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// fakeTracer records spans and deliveries. It samples all publications unless none is set.
type fakeTracer struct {
	none bool

	mu         sync.Mutex // protects the fields below
	spans      []*fakeSpan
	deliveries []TracedDelivery
}

type fakeSpan struct {
	tracer                        *fakeTracer
	name, uploadID, parent, trace string
	at                            Position
	err                           error
	ended                         bool
}

func (t *fakeTracer) begin(name, uploadID, parent string) Span {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &fakeSpan{tracer: t, name: name, uploadID: uploadID, parent: parent}
	s.trace = fmt.Sprintf("00-%032x-%016x-01", 1, len(t.spans)+1)
	t.spans = append(t.spans, s)
	return s
}

func (t *fakeTracer) Publish(_ context.Context, uploadID string) Span {
	if t.none {
		return nil
	}
	return t.begin("publish", uploadID, "")
}

func (t *fakeTracer) Broker(parent, uploadID string) Span { return t.begin("broker", uploadID, parent) }

func (t *fakeTracer) Delivered(d TracedDelivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deliveries = append(t.deliveries, d)
}

func (s *fakeSpan) TraceContext() string { return s.trace }

func (s *fakeSpan) End(at Position, err error) {
	s.tracer.mu.Lock()
	defer s.tracer.mu.Unlock()
	s.at, s.err, s.ended = at, err, true
}

// all returns copies of the spans with a name, and of the deliveries.
func (t *fakeTracer) all(name string) (spans []fakeSpan, deliveries []TracedDelivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.spans {
		if s.name == name {
			spans = append(spans, *s)
		}
	}
	return spans, slices.Clone(t.deliveries)
}

// writer connects a connection that writes each message after a time; at once without a timer, of which the race detector
// does not bear a thousand at the same time.
func writer(t *testing.T, m *Manager, userID string, after time.Duration) *fakeConn {
	t.Helper()
	c := &fakeConn{}
	c.onSend = func(f *Frame) Outcome {
		written := func() { m.Written()(f) }
		switch {
		case !f.Traced():
		case after == 0:
			go written()
		default:
			time.AfterFunc(after, written)
		}
		return Queued
	}
	must(t, m.Connect(userID, c))
	must(t, m.SubscribeUpload(t.Context(), userID, "cat"))
	return c
}

// A traced message is reported when all its connections have written it, with the times of the first and the last.
func TestTracing_FollowsAMessageUntilItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracer := &fakeTracer{}
		m := open(t, Options{Tracer: tracer})
		writer(t, m, "ann", time.Millisecond)
		writer(t, m, "bob", 3*time.Second)
		begin := time.Now()
		at := publish(t, m, "cat", 1)
		<-time.After(2 * time.Second)
		spans, deliveries := tracer.all("publish")
		if len(spans) != 1 || !spans[0].ended || spans[0].at != at || spans[0].uploadID != "cat" || len(deliveries) != 0 {
			t.Fatalf("after one write there are the spans %+v and the deliveries %+v", spans, deliveries)
		}
		<-time.After(2 * time.Second)
		_, deliveries = tracer.all("publish")
		want := TracedDelivery{
			Parent: spans[0].trace, UploadID: "cat", Offset: at.Offset, Arrived: begin, Sent: begin, Connections: 2, Written: 2,
			FirstWritten: begin.Add(time.Millisecond), LastWritten: begin.Add(3 * time.Second),
		}
		if len(deliveries) != 1 || !equalDeliveries(deliveries[0], want) {
			t.Errorf("reported %+v, want %+v", deliveries, want)
		}
	})
}

func equalDeliveries(a, b TracedDelivery) bool {
	if !a.Arrived.Equal(b.Arrived) || !a.Sent.Equal(b.Sent) || !a.FirstWritten.Equal(b.FirstWritten) ||
		!a.LastWritten.Equal(b.LastWritten) {
		return false
	}
	a.Arrived, a.Sent, a.FirstWritten, a.LastWritten = b.Arrived, b.Sent, b.FirstWritten, b.LastWritten
	return a == b
}

// A message that a connection does not write is reported after a time, or when the manager is closed.
func TestTracing_ReportsUnwrittenMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracer := &fakeTracer{}
		m := open(t, Options{Tracer: tracer})
		writer(t, m, "ann", time.Millisecond)
		writer(t, m, "bob", time.Hour)
		publish(t, m, "cat", 1)
		<-time.After(tracedPatience + 2*tracedCheck)
		if _, d := tracer.all(""); len(d) != 1 || d[0].Connections != 2 || d[0].Written != 1 {
			t.Errorf("after the patience %+v is reported", d)
		}
		publish(t, m, "cat", 1)
		must(t, m.Close(t.Context()))
		if _, d := tracer.all(""); len(d) != 2 || d[1].Written != 0 {
			t.Errorf("after Close %+v is reported", d)
		}
	})
}

// A message to nobody is reported at once, one to a large audience with the number of its connections.
func TestTracing_CountsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracer := &fakeTracer{}
		m := open(t, Options{Tracer: tracer})
		publish(t, m, "dog", 1)
		for _, c := range crowd(t, m, "cat") {
			c.onSend = func(f *Frame) Outcome {
				m.Written()(f)
				return Queued
			}
		}
		publish(t, m, "cat", 3)
		<-time.After(time.Second)
		_, d := tracer.all("")
		if len(d) != 4 || d[0].UploadID != "dog" || d[0].Connections != 0 {
			t.Fatalf("reported %d deliveries, first %+v", len(d), d[0])
		}
		for _, one := range d[1:] {
			if one.Connections < fanOutAlone || one.Written != one.Connections {
				t.Errorf("reported %d of %d connections", one.Written, one.Connections)
			}
		}
	})
}

// A publication that is not sampled allocates no more than without a tracer, and its frames are not followed.
func TestTracing_UnsampledCostsNothing(t *testing.T) {
	allocations := func(opt Options) float64 {
		m := open(t, opt)
		c := &fakeConn{onSend: func(f *Frame) Outcome {
			if f.Traced() {
				t.Error("a frame is traced")
			}
			return Queued
		}}
		must(t, m.Connect("ann", c))
		must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
		var msg Message = note(t, 1)
		publish(t, m, "cat", 100) // fills the history
		return testing.AllocsPerRun(100, func() {
			c.frames = c.frames[:0]
			if _, err := m.Publish(context.Background(), "cat", msg); err != nil {
				t.Error(err)
			}
		})
	}
	off, unsampled := allocations(Options{}), allocations(Options{Tracer: &fakeTracer{none: true}})
	if off > 2 || unsampled > off {
		t.Errorf("a message takes %v allocations without a tracer and %v if it is not sampled", off, unsampled)
	}
	if open(t, Options{}).Written() != nil {
		t.Error("without a tracer connections report what they have written")
	}
}

// At most maxTraced messages are followed at a time.
func TestTracing_IsBounded(t *testing.T) {
	tracer := &fakeTracer{}
	m := open(t, Options{Tracer: tracer})
	c := connect(t, m, "ann")
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	publish(t, m, "cat", maxTraced+10)
	traced := 0
	for _, f := range c.frames {
		if f.Traced() {
			traced++
		}
	}
	if traced != maxTraced || len(m.tracing.open) != maxTraced {
		t.Errorf("%d messages are traced and %d followed, want %d", traced, len(m.tracing.open), maxTraced)
	}
}

// The trace context of the broker call reaches the other nodes, also that of a state that was delayed.
func TestTracing_ConnectsNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{})
		here, there := &fakeTracer{}, &fakeTracer{}
		a := open(t, Options{Broker: hub.Node(), Tracer: here, StateRate: 50})
		b := open(t, Options{Broker: hub.Node(), Tracer: there})
		synctest.Wait()
		writer(t, b, "bob", 0)
		for n := 1; n <= 2; n++ { // the second one is delayed
			_, err := a.Publish(t.Context(), "cat", UploadProgress{Status: StatusPending, Stage: StageQueued})
			must(t, err)
		}
		_, _, err := a.PublishOnce(t.Context(), "cat", note(t, 3), Once{Key: "key"})
		must(t, err)
		<-time.After(time.Second)
		checkConnected(t, here, there)
	})
}

// checkConnected fails unless each of three deliveries on one node belongs to a call and a publication of another.
func checkConnected(t *testing.T, here, there *fakeTracer) {
	t.Helper()
	published, _ := here.all("publish")
	calls, _ := here.all("broker")
	_, deliveries := there.all("")
	if len(published) != 3 || len(calls) != 3 || len(deliveries) != 3 {
		t.Fatalf("there are %d publications, %d calls and %d deliveries", len(published), len(calls), len(deliveries))
	}
	slices.SortFunc(deliveries, func(a, b TracedDelivery) int { return cmp.Compare(a.Offset, b.Offset) })
	for i, call := range calls {
		d := deliveries[i]
		if call.parent != published[i].trace || d.Parent != call.trace || !call.ended || call.at.Offset != d.Offset {
			t.Errorf("delivery %+v follows the call %+v of the publication %+v", d, call, published[i])
		}
		if d.Written != 1 {
			t.Errorf("delivery %d was written by %d connections", i, d.Written)
		}
	}
}

// The error of a publication ends its spans.
func TestTracing_ReportsErrors(t *testing.T) {
	tracer, refusal := &fakeTracer{}, errors.New("refused")
	inCluster(t, 1, Options{Tracer: tracer}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		nodes[0].link.meddle(func(_ context.Context, call string) error {
			if call == "Store" {
				return refusal
			}
			return nil
		}, nil)
		if _, err := nodes[0].Publish(t.Context(), "cat", note(t, 1)); !errors.Is(err, refusal) {
			t.Fatalf("Publish returned %v", err)
		}
	})
	for _, name := range []string{"publish", "broker"} {
		if spans, _ := tracer.all(name); len(spans) != 1 || !spans[0].ended || !errors.Is(spans[0].err, refusal) {
			t.Errorf("%s: %+v", name, spans)
		}
	}
}

// A burst to many connections is reported as soon as they have written it, although a subscriber has no connection.
func TestTracing_BurstCountsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracer := &fakeTracer{}
		m := open(t, Options{Tracer: tracer})
		for i := range fanOutAlone {
			writer(t, m, fmt.Sprint("user ", i), 0)
		}
		must(t, m.SubscribeUpload(t.Context(), "pending", "cat"))
		publish(t, m, "cat", 1)
		<-time.After(time.Millisecond)
		synctest.Wait()
		if _, deliveries := tracer.all("publish"); len(deliveries) != 1 || deliveries[0].Connections != fanOutAlone {
			t.Errorf("reported are %+v", deliveries)
		}
	})
}

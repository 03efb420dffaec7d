package shoaltrace_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server/shoaltrace"
)

const remote = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// newTracer returns a tracer of a share of the publications, and an exporter in memory.
func newTracer(share float64) (*shoaltrace.Tracer, *tracetest.InMemoryExporter) {
	exporter := tracetest.NewInMemoryExporter()
	return shoaltrace.New(sdktrace.NewTracerProvider(
		sdktrace.WithSyncer(exporter), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(share))),
	)), exporter
}

// conn is a connection that writes at once.
type conn struct{ written func(*manager.Frame) }

func (c *conn) Send(f *manager.Frame) manager.Outcome {
	if f.Traced() {
		c.written(f)
	}
	return manager.Queued
}

func (*conn) Close(manager.CloseReason) {}

// node returns a manager that is closed with the test.
func node(t *testing.T, opt manager.Options) *manager.Manager {
	t.Helper()
	m, err := manager.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return m
}

func follow(t *testing.T, m *manager.Manager, userID, uploadID string) {
	t.Helper()
	err := errors.Join(m.Connect(userID, &conn{m.Written()}), m.SubscribeUpload(t.Context(), userID, uploadID))
	if err != nil {
		t.Fatal(err)
	}
}

// byName returns the spans of an exporter by their names.
func byName(exporters ...*tracetest.InMemoryExporter) map[string]tracetest.SpanStub {
	spans := map[string]tracetest.SpanStub{}
	for _, e := range exporters {
		for _, s := range e.GetSpans() {
			spans[s.Name] = s
		}
	}
	return spans
}

// A publication by HTTP on one node and its delivery on another are one trace, a part of the caller's, without
// payloads.
func TestTracer_ConnectsNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{})
		here, there := make([]*tracetest.InMemoryExporter, 1), make([]*tracetest.InMemoryExporter, 1)
		var tracer, other *shoaltrace.Tracer
		tracer, here[0] = newTracer(0) // the caller has decided that the request is traced
		other, there[0] = newTracer(0)
		a := node(t, manager.Options{Broker: hub.Node(), Tracer: tracer})
		b := node(t, manager.Options{Broker: hub.Node(), Tracer: other})
		synctest.Wait()
		uploadID := strings.Repeat("ü", 64)
		follow(t, b, "ann", uploadID)
		follow(t, b, "bob", uploadID)
		msg, err := manager.Parse(uploadID, []byte(`{"action":"note","text":"payload-7361"}`), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		handler := tracer.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if _, err := a.Publish(r.Context(), uploadID, msg); err != nil {
				t.Error(err)
			}
		}))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Header.Set("Traceparent", remote)
		handler.ServeHTTP(httptest.NewRecorder(), r)
		<-time.After(time.Second)

		spans := byName(here[0], there[0])
		parent := trace.SpanID{0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31}
		for _, name := range []string{"shoal publish", "shoal broker", "shoal deliver", "shoal written"} {
			s, ok := spans[name]
			if !ok || s.SpanContext.TraceID().String() != remote[3:35] || s.Parent.SpanID() != parent {
				t.Fatalf("%s is %+v, want it in the caller's trace as a child of %s", name, s, parent)
			}
			parent = s.SpanContext.SpanID()
			for _, a := range s.Attributes {
				if text := a.Value.String(); strings.Contains(text, "7361") || len(text) > 128 {
					t.Errorf("%s has the attribute %v", name, a)
				}
			}
		}
		if got := len(here[0].GetSpans()) + len(there[0].GetSpans()); got != 4 {
			t.Errorf("there are %d spans, want 4", got)
		}
		for _, a := range spans["shoal written"].Attributes {
			if a.Value.AsInt64() != 2 {
				t.Errorf("the attribute %v, want 2", a)
			}
		}
	})
}

// A traceparent that is malformed, given twice or not sampled does not make a publication traced, and breaks nothing.
func TestTracer_IgnoresTraceContexts(t *testing.T) {
	for name, values := range map[string][]string{
		"empty": {""}, "twice": {remote, remote}, "short": {remote[:54]}, "nonsense": {strings.Repeat("x", 55)},
		"zero trace": {"00-" + strings.Repeat("0", 32) + remote[35:]}, "long": {remote + strings.Repeat("-", 5000)},
		"version ff": {"ff" + remote[2:]}, "not sampled": {remote[:53] + "00"}, "upper case": {strings.ToUpper(remote)},
	} {
		tracer, exporter := newTracer(0)
		m := node(t, manager.Options{Tracer: tracer})
		follow(t, m, "ann", "a")
		called := false
		handler := tracer.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			called = true
			if s := tracer.Publish(r.Context(), "a"); s != nil {
				t.Errorf("%s: the publication is traced", name)
			}
		}))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Header["Traceparent"] = values
		handler.ServeHTTP(httptest.NewRecorder(), r)
		if len(values) == 1 {
			tracer.Delivered(manager.TracedDelivery{Parent: values[0], UploadID: "a"})
		}
		if spans := exporter.GetSpans(); !called || len(spans) > 0 {
			t.Errorf("%s: called %v, spans %+v", name, called, spans)
		}
	}
}

// Errors are the status of their spans, and bounded.
func TestTracer_ReportsErrors(t *testing.T) {
	tracer, exporter := newTracer(1)
	tracer.Publish(t.Context(), "a").End(manager.Position{}, errors.New(strings.Repeat("ö", 200)))
	tracer.Publish(t.Context(), "a").End(manager.Position{Offset: 7}, nil)
	spans := exporter.GetSpans()
	if s := spans[0].Status; s.Code != codes.Error || s.Description != strings.Repeat("ö", 100) {
		t.Errorf("the status is %+v", s)
	}
	if s := spans[1]; s.Status.Code != codes.Unset || s.Attributes[len(s.Attributes)-1].Value.AsInt64() != 7 {
		t.Errorf("the span is %+v", s)
	}
}

// BenchmarkTrace publishes to ten followers: without a tracer, with one that samples nothing, one in a hundred, and
// all.
func BenchmarkTrace(b *testing.B) {
	discard := sdktrace.WithBatcher(tracetest.NewNoopExporter())
	for _, c := range []struct {
		name  string
		share float64
	}{{"off", -1}, {"sample=0", 0}, {"sample=0.01", 0.01}, {"sample=1", 1}} {
		b.Run(c.name, func(b *testing.B) {
			var opt manager.Options
			if c.share >= 0 {
				provider := sdktrace.NewTracerProvider(discard,
					sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.share))))
				defer func() { _ = provider.Shutdown(context.Background()) }()
				opt.Tracer = shoaltrace.New(provider)
			}
			m, err := manager.New(opt)
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close(context.Background())
			for _, user := range strings.Split("abcdefghij", "") {
				err := errors.Join(m.Connect(user, &conn{m.Written()}), m.SubscribeUpload(b.Context(), user, "a"))
				if err != nil {
					b.Fatal(err)
				}
			}
			var msg manager.Message
			if msg, err = manager.Parse("a", []byte(`{"action":"note","text":"forty characters of some payload, or so"}`), time.Time{}); err != nil {
				b.Fatal(err)
			}
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Publish(ctx, "a", msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

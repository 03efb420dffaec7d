// Package shoaltrace traces messages with OpenTelemetry, from their publication until they have been written to
// clients.
//
//	tracer := shoaltrace.New(provider)
//	m, err := manager.New(manager.Options{Tracer: tracer, …})
//	s, err := server.New(server.Options{Manager: m, …})
//	handler := tracer.Handler(s.Handler())
//
// The provider's sampler decides which publications are traced. A traced publication has these spans:
//
//	shoal publish     Manager.Publish or PublishOnce; a child of the span in its context
//	  shoal broker    the broker accepts the message; with a broker only
//	    shoal deliver on each node that has followers: from arrival until the message is queued at all connections
//	      shoal written   until the last connection has handed it to the kernel, with an event for the first
//
// Spans contain the id of the upload, counts and offsets, and no payload, user or token. docs/tracing.md describes
// them.
package shoaltrace

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/shoal-go/shoal/manager"
)

// Attributes of spans.
const (
	systemKey      = attribute.Key("messaging.system")
	uploadKey      = attribute.Key("messaging.destination.name")
	offsetKey      = attribute.Key("shoal.offset")
	connectionsKey = attribute.Key("shoal.connections")
	writtenKey     = attribute.Key("shoal.connections.written")
)

const (
	// scope is the name of the instrumentation.
	scope = "github.com/shoal-go/shoal/server/shoaltrace"
	// header is the header field of a W3C trace context.
	header = "traceparent"
	// maxUploadID and maxError bound the texts in a span.
	maxUploadID, maxError = 128, 200
)

// Tracer is a manager.Tracer. Its methods may be called from any number of goroutines; they block only if the
// provider's span processors do.
type Tracer struct {
	tracer trace.Tracer
}

var _ manager.Tracer = (*Tracer)(nil)

// New returns a tracer whose spans are those of a provider.
func New(provider trace.TracerProvider) *Tracer { return &Tracer{provider.Tracer(scope)} }

// Handler returns a handler that gives requests with a valid traceparent header to next with a context of that remote
// span: a publication by HTTP is then a part of its caller's trace. Programs that use a middleware of OpenTelemetry do
// not need it.
func (*Tracer) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			if values := r.Header.Values(header); len(values) == 1 {
				r = r.WithContext(withParent(r.Context(), values[0]))
			}
		}
		next.ServeHTTP(w, r)
	})
}

// withParent returns a context of a remote span, or ctx unless the trace context is valid. The tracestate is left out.
func withParent(ctx context.Context, parent string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{header: parent})
}

// Publish implements manager.Tracer.
func (t *Tracer) Publish(ctx context.Context, uploadID string) manager.Span {
	return t.begin(ctx, "shoal publish", trace.SpanKindInternal, uploadID)
}

// Broker implements manager.Tracer.
func (t *Tracer) Broker(parent, uploadID string) manager.Span {
	return t.begin(withParent(context.Background(), parent), "shoal broker", trace.SpanKindProducer, uploadID)
}

// begin begins a span, nil if it is not sampled. The attributes are added afterwards: most spans are not sampled.
func (t *Tracer) begin(ctx context.Context, name string, kind trace.SpanKind, uploadID string) manager.Span {
	_, s := t.tracer.Start(ctx, name, trace.WithSpanKind(kind))
	if !s.IsRecording() {
		return nil
	}
	s.SetAttributes(about(uploadID)...)
	return span{s}
}

func about(uploadID string) []attribute.KeyValue {
	return []attribute.KeyValue{systemKey.String("shoal"), uploadKey.String(truncate(uploadID, maxUploadID))}
}

// Delivered implements manager.Tracer. It ignores a message whose trace context is malformed.
func (t *Tracer) Delivered(d manager.TracedDelivery) {
	ctx := withParent(context.Background(), d.Parent)
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return
	}
	ctx, deliver := t.tracer.Start(ctx, "shoal deliver", trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithTimestamp(d.Arrived))
	if !deliver.IsRecording() {
		return
	}
	deliver.SetAttributes(append(about(d.UploadID), offsetOf(d.Offset), connectionsKey.Int(d.Connections))...)
	if d.Sent.Before(d.Arrived) {
		d.Sent = d.Arrived // it was reported before it had been queued at all connections
	}
	deliver.End(trace.WithTimestamp(d.Sent))
	if d.Connections == 0 {
		return
	}
	_, written := t.tracer.Start(ctx, "shoal written", trace.WithTimestamp(d.Arrived))
	written.SetAttributes(writtenKey.Int(d.Written), connectionsKey.Int(d.Connections))
	end := d.Sent
	if d.Written > 0 {
		written.AddEvent("first connection", trace.WithTimestamp(d.FirstWritten))
		end = d.LastWritten
	}
	written.End(trace.WithTimestamp(end))
}

func offsetOf(offset uint64) attribute.KeyValue {
	return offsetKey.Int64(int64(offset)) //nolint:gosec // counts messages
}

// span is a manager.Span.
type span struct{ trace.Span }

// TraceContext implements manager.Span.
func (s span) TraceContext() string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpan(context.Background(), s.Span), carrier)
	return carrier[header]
}

// End implements manager.Span.
func (s span) End(at manager.Position, err error) {
	if at.Offset > 0 {
		s.SetAttributes(offsetOf(at.Offset))
	}
	if err != nil {
		s.SetStatus(codes.Error, truncate(err.Error(), maxError))
	}
	s.Span.End()
}

// truncate returns the beginning of a text, in valid UTF-8.
func truncate(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

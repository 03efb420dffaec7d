package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/net/http/httpguts"

	"github.com/shoal-go/shoal/internal/logs"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server/shoaltrace"
)

const (
	// tracePath is the path of a collector whose URL has none.
	tracePath = "/v1/traces"
	// traceTimeout bounds one request to the collector and traceRetry all attempts with the same spans. Spans that wait
	// are bounded by the SDK's queue.
	traceTimeout, traceRetry = 5 * time.Second, 30 * time.Second
	// traceFlush bounds the time for the spans that are left at the end: a collector that is away does not delay it.
	traceFlush = 2 * time.Second
)

// checkTracing reports settings of tracing that cannot work.
func (f *serveFlags) checkTracing(s *settings) {
	seen := make(map[string]bool)
	for _, line := range f.TraceHeader {
		name, value, ok := splitHeader(line)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			s.refuse("trace-header", `has an entry that is no header, want such as "Authorization: Bearer …"`)
			continue
		}
		if name = http.CanonicalHeaderKey(name); seen[name] { // the last one would take the place of the others
			s.refuse("trace-header", "has a header a second time, want each once")
		}
		seen[name] = true
	}
	if f.TraceEndpoint == "" {
		if len(f.TraceHeader) > 0 {
			s.refuse("trace-header", "is set, want a "+s.key("trace-endpoint")+" with it")
		}
		return
	}
	checkURL(s, "trace-endpoint", f.TraceEndpoint, "the http(s):// URL of an OpenTelemetry collector")
	if u, err := url.Parse(f.TraceEndpoint); err == nil && (u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		s.refuse("trace-endpoint", "has a user, query or fragment, want a URL without; credentials belong into "+
			s.key("trace-header"))
	}
}

func splitHeader(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ":")
	return name, strings.TrimSpace(value), ok
}

// tracing sends the spans of sampled messages to a collector, in the background. Spans are dropped if the collector is
// away for long.
type tracing struct {
	*shoaltrace.Tracer
	provider *sdktrace.TracerProvider
	exporter *traceExporter
}

// openTracing prepares tracing if --trace-endpoint is set. It does not wait for the collector.
func (n *node) openTracing() error {
	n.metrics.countSpans(n.spanCounts)
	f := n.flags
	if f.TraceEndpoint == "" {
		return nil
	}
	u, err := url.Parse(f.TraceEndpoint)
	if err != nil {
		return errors.New("--trace-endpoint cannot be parsed")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = tracePath
	}
	headers := map[string]string{}
	for _, line := range f.TraceHeader {
		name, value, _ := splitHeader(line)
		headers[name] = value
	}
	ctx, cancel := context.WithCancel(context.Background())
	otlp, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithHeaders(headers),
		otlptracehttp.WithTimeout(traceTimeout), otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: traceTimeout, MaxElapsedTime: traceRetry,
		}))
	if err != nil {
		cancel()
		return fmt.Errorf("cannot prepare tracing to --trace-endpoint: %w", err)
	}
	exporter := &traceExporter{SpanExporter: otlp, ctx: ctx, cancel: cancel, log: n.log}
	exporter.failures.Interval = 10 * time.Second
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithExportTimeout(traceRetry)), sdktrace.WithResource(traceResource(n.name)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(f.TraceSample))),
	)
	n.tracing = &tracing{shoaltrace.New(provider), provider, exporter}
	return nil
}

// traceResource returns the attributes of a node. The SDK would add the command line, which may hold secrets.
func traceResource(name string) *resource.Resource {
	return resource.NewSchemaless(
		attribute.String("service.name", "shoal"), attribute.String("service.version", buildVersion()),
		attribute.String("service.instance.id", name),
	)
}

// tracer returns the manager's tracer, nil without tracing.
func (n *node) tracer() manager.Tracer {
	if n.tracing == nil {
		return nil
	}
	return n.tracing
}

// traced returns a handler that takes publications for parts of their callers' traces, if there is tracing.
func (n *node) traced(handler http.Handler) http.Handler {
	if n.tracing == nil {
		return handler
	}
	return n.tracing.Handler(handler)
}

// closeTracing sends the spans that are left, as far as the time allows.
func (n *node) closeTracing(ctx context.Context) {
	if n.tracing == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, traceFlush)
	defer cancel()
	defer context.AfterFunc(ctx, n.tracing.exporter.cancel)()
	n.warn("tracing", n.tracing.provider.Shutdown(ctx))
	n.tracing.exporter.close()
}

// traceExporter counts and logs the outcomes of an exporter. Its requests end with ctx.
type traceExporter struct {
	sdktrace.SpanExporter
	ctx          context.Context // ends the requests
	cancel       context.CancelFunc
	log          *slog.Logger
	failures     logs.Sampled
	sent, failed atomic.Uint64
	exporting    sync.Mutex // held during a request
}

// close ends a request that is under way, and blocks until it has ended.
func (e *traceExporter) close() {
	e.cancel()
	e.exporting.Lock()
	defer e.exporting.Unlock()
}

// ExportSpans sends spans. It returns no error: the SDK would log each one.
func (e *traceExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	e.exporting.Lock()
	defer e.exporting.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	count := uint64(len(spans))
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.failed.Add(count)
		e.failures.Log(e.log, slog.LevelWarn, "trace export failed", "spans", count, "error", logs.Truncate(err.Error()))
		return nil
	}
	e.sent.Add(count)
	return nil
}

// spanCounts returns how many spans the collector has taken and how many are lost, zeros without tracing.
func (n *node) spanCounts() (sent, failed uint64) {
	if n.tracing == nil {
		return 0, 0
	}
	return n.tracing.exporter.sent.Load(), n.tracing.exporter.failed.Load()
}

// countSpans exports the counts of spans.
func (m *metrics) countSpans(counts func() (sent, failed uint64)) {
	counter := func(outcome string, value func() uint64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "shoal_trace_spans_total", Help: "Spans for the collector of --trace-endpoint, by outcome.",
			ConstLabels: prometheus.Labels{"outcome": outcome},
		}, func() float64 { return float64(value()) }))
	}
	counter("sent", func() uint64 { sent, _ := counts(); return sent })
	counter("failed", func() uint64 { _, failed := counts(); return failed })
}

package broker

import "context"

// maxTrace is the length of a trace context of version 00.
const maxTrace = 55

// traceKey is the key of a trace context in a context.
type traceKey struct{}

// WithTrace returns a context with which Store and StoreOnce carry a trace context, the value of a W3C traceparent header,
// to the nodes that receive the message: see Message.Trace. It travels beside the payload, which stays the same. Publish
// carries it too unless the engine has nothing but the payload, like Redis.
func WithTrace(ctx context.Context, trace string) context.Context {
	return context.WithValue(ctx, traceKey{}, trace)
}

// TraceOf returns the trace context that WithTrace has added, or "".
func TraceOf(ctx context.Context) string {
	trace, _ := ctx.Value(traceKey{}).(string)
	return BoundTrace(trace)
}

// BoundTrace returns a trace context, or "" if it has not the length of one. Whether it is one is for its reader to
// decide, as it may come from another program.
func BoundTrace(trace string) string {
	if len(trace) != maxTrace {
		return ""
	}
	return trace
}

// Package shoaltrace traces messages with OpenTelemetry, from their publication until they have been written to clients.
//
//	tracer := shoaltrace.New(provider)
//	manager, err := manager.New(manager.Options{Tracer: tracer, …})
//	server, err := server.New(server.Options{Manager: manager, …})
//	handler := tracer.Handler(server.Handler())
//
// The provider's sampler decides which publications are traced. A traced publication has these spans:
//
//	shoal publish     Manager.Publish or PublishOnce; a child of the span in its context
//	  shoal broker    the broker accepts the message; with a broker only
//	    shoal deliver on each node that has followers: from arrival until the message is queued at all connections
//	      shoal written   until the last connection has handed it to the kernel, with an event for the first
//
// Spans contain the id of the upload, counts and offsets, and no payload, user or token. docs/tracing.md describes them.
package shoaltrace

// Package webhook reports events of clients to an HTTP service of the operator: that they connect, disconnect,
// subscribe and unsubscribe, and that an upload has got its first follower or lost its last one on this node.
//
// Events are queued, sent in batches and in order by one goroutine, signed, and repeated with growing pauses until the
// service has taken them. The queue is bounded: events that do not fit are dropped and counted. Nothing waits for the
// service.
package webhook

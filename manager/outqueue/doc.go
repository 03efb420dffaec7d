// Package outqueue is the queue of a connection of one's own, for example a response of Server-Sent Events, a gRPC
// stream or a message bus: it keeps messages until the transport has sent them, within bounds.
//
// A [Queue] is a [manager.Conn]: connect it, and send the messages that [Queue.Next] returns, on one goroutine:
//
//	q := outqueue.New(outqueue.Options{})
//	if err := m.Connect(userID, q); err != nil { … }
//	defer m.Disconnect(userID, q)
//	for {
//		message, err := q.Next(ctx)
//		if err != nil {
//			return err // ctx has ended, or *outqueue.ClosedError
//		}
//		…
//	}
//
// It follows the rules of the server's WebSockets. A client that keeps up gets every message. Under pressure a newer
// state takes the place of a queued state of the same upload, and counts it as skipped. Events and terminal messages
// are never dropped or overtaken: a queue that cannot hold one, or whose oldest message is too old, drops its messages
// and ends with [manager.SlowConsumer]; the client then reconnects and recovers from its last position. Missed
// messages are read from the history at the client's pace, with any limits of the queue.
package outqueue

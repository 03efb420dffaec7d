// Package outbox is the outbound side of connections: one bounded queue of encoded frames per connection, and the
// few writer goroutines that write these queues to the sockets.
//
// Send queues a frame in an [Outbox]. The first frame in an idle outbox puts the outbox on the ready list of one of the
// [Pool]'s writers. The writer dequeues all frames of the outbox, encodes them into one buffer and writes that with
// one non-blocking system call. Frames that arrive while the writer is busy share the next write, so batches grow
// with the load, and no frame is delayed by a timer.
//
// A socket that returns EAGAIN is detached from its writer: a drain goroutine of its own writes to it with blocking writes
// until its queues are empty. A connection without a file descriptor (TLS, net.Pipe) always uses a drain
// goroutine. An idle outbox has no goroutine and no memory beyond its struct.
//
// # Ownership
//
// The owner of an outbox is the goroutine that may write to its socket: none while the outbox is idle, a writer while the
// outbox is on its ready list or being served, the drain goroutine while that runs. Only the owner gives
// ownership up, so writes of two goroutines are never interleaved. An idle outbox is enqueued at its own writer; a writer at
// the end of a long busy period may steal outboxes from the ready lists of others and then owns them.
//
// # Locks
//
// Lock order: Outbox.mu, then writer.mu. No other two locks are held together, and no lock is held during I/O.
package outbox

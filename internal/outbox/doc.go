// Package outbox is the outbound side of connections: one bounded queue of encoded frames per connection, and the
// few writer goroutines that write these queues to the sockets.
//
// Send queues a frame in an [Outbox]. The first frame in an idle outbox puts the outbox on the ready list of one of the
// [Pool]'s writers. The writer dequeues all frames of the outbox, encodes them into one buffer and writes that with
// one non-blocking system call. Frames that arrive while the writer is busy share the next write, so batches grow
// with the load, and no frame is delayed by a timer.
//
// A caller of SendDeferred may own an idle outbox until it calls Flush and writes the frames itself: waking another
// goroutine takes longer than the write. Only few flushes may follow each other, so that bursts are left to the
// writers.
//
// A socket that returns EAGAIN is detached from its writer: a drain goroutine of its own writes to it with blocking
// writes until its queues are empty. It dequeues frames when the socket is writable, not before: until then a newer
// state can replace a queued one. A connection without a file descriptor (net.Pipe) always uses a drain goroutine,
// unless it is a [TryWriter], as those over TLS are. An idle outbox has no goroutine and no memory beyond its struct.
//
// # Recovery
//
// Stored messages that a client has requested (its recovery) are queued with package replay in one backlog per upload,
// see [Outbox.Recover]. They do not count against the limits of live frames, and each batch takes at most a portion of
// them behind the queued live frames: a recovery of any length proceeds at the client's pace and delays live frames
// of other uploads by at most one portion. Live frames of an upload in recovery join its backlog, so that its order
// is kept. The backlogs hold as many frames as fit in Options.MaxRecoveryBytes per connection; a drain goroutine reads
// the others from the history later.
//
// # Ownership
//
// The owner of an outbox is the goroutine that may write to its socket: none while the outbox is idle, a writer while
// the outbox is on its ready list or being served, the drain goroutine while that runs, a caller of SendDeferred until
// its Flush. Only the owner gives ownership up, so writes of two goroutines are never interleaved. An idle outbox is
// enqueued at its own writer; a writer at the end of a long busy period may steal outboxes from the ready lists of
// others and then owns them.
//
// # Locks
//
// Lock order: Outbox.mu, then writer.mu. Callers of Send and Recover may hold an upload's lock; the outbox calls a
// [Source], which locks uploads, without holding its own. No lock is held during I/O, but
// for the read lock by which Pool.Close waits for the end of each Flush, which does not block.
package outbox

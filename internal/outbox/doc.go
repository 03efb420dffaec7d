// Package outbox holds what waits to be written to one connection, and the few goroutines that write it.
//
// An [Outbox] is a bounded queue of encoded frames. The first frame into an empty one puts it on the list of
// a writer, one of the handful that a [Pool] has; the writer takes all that waits, joins it into one buffer
// and hands that to the kernel in one system call that does not block. While the writer is busy frames
// gather, so the batches grow just as far as the load asks for, and nothing is ever delayed by a timer.
//
// A socket that refuses bytes leaves its writer: a goroutine of its own writes to it, blocking, until
// nothing waits any more. A connection without a file descriptor to write to (TLS, a pipe in memory) is
// always written to in that way. An idle outbox has no goroutine, and no memory beyond its struct.
//
// # Ownership
//
// Whoever may write to the socket owns the outbox: nobody while it is idle, a writer while it is on the
// writer's list or in its hand, its goroutine while that runs. The owner alone gives ownership up, so frames of
// two goroutines never mix. An idle outbox goes to the list of its own writer; a writer that has come to the end of
// a long list takes from those of the others, and then it is the owner.
//
// # Locks
//
// An outbox's mutex comes before its writer's; nothing else is ever held together. No lock is held during
// I/O.
package outbox

package outbox

import "syscall"

const (
	// slowChecks is the number of writes after a stall before which the owner checks that the socket is writable.
	slowChecks = 255
	// slowBatch is the size of a batch in that time: a frame in a batch can no longer be conflated or dropped.
	slowBatch = 4 << 10
)

// awaitWritable is called by the owner before it dequeues frames of a slow client. A drain goroutine waits until the
// socket is writable; any other owner only checks that. mu is held. It is released during the system call, and if the
// result is false.
//
// A write alone would exceed Options.UnsentBytes: the kernel checks the limit for each of its buffers, and appends to a
// buffer of up to 64 KiB without a check. A socket becomes writable when half of the limit has been sent.
func (o *Outbox) awaitWritable() (ready bool) {
	draining := o.draining
	if draining {
		o.oldest = o.oldestQueued()
	}
	o.mu.Unlock()
	ready = true
	switch raw := o.descriptor(); { // errors are left to the write that follows
	case raw == nil:
	case draining:
		_ = raw.Write(func(fd uintptr) bool {
			if writable(fd) {
				return true
			}
			o.noteSlow()
			return false
		})
	default:
		o.slow--
		_ = raw.Control(func(fd uintptr) { ready = writable(fd) })
		if !ready {
			o.slow = slowChecks
		}
	}
	if ready {
		o.mu.Lock()
	}
	return ready
}

// noteSlow is called by a drain goroutine whose socket is not writable.
func (o *Outbox) noteSlow() {
	o.slow = slowChecks
	o.mu.Lock()
	defer o.mu.Unlock()
	o.noteStall()
}

// descriptor gives access to the file descriptor of the connection or of the TCP connection below it, which a
// connection whose NetConn does not lead there has as its own, or returns nil.
func (o *Outbox) descriptor() syscall.RawConn {
	if o.raw != nil {
		return o.raw
	}
	if tcp := tcpConn(o.conn); tcp != nil {
		return rawConn(tcp)
	}
	if own, ok := o.conn.(syscall.Conn); ok {
		raw, _ := own.SyscallConn()
		return raw
	}
	return nil
}

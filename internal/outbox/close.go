package outbox

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// Close begins to close the connection: further frames are dropped, queued frames are written, then before, then
// final, which must be a close frame. Then the write side of the connection is closed. The socket
// itself is closed after PeerGone: closing it while the client is still sending would reset the connection, and
// a reset can overtake the close frame. A recovery is written too if the client reads it within half of the timeout.
//
// Close does not block. After Options.CloseTimeout the socket is closed even if frames are unwritten. Only the first
// call has an effect, and none after Abort.
func (o *Outbox) Close(final *frame.Frame, before ...*frame.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.dead {
		return
	}
	if o.recoverBeforeClose() {
		o.recovery.final = append(append(o.recovery.final, before...), final)
		o.closing = true
		o.setTimer(o.pool.closeTimeout / 2)
		o.scheduleLocked()
		return
	}
	o.beginClose(before...)
	o.pushFinal(final)
}

// recoverBeforeClose reports whether the final frames have to wait for queued frames of a recovery. It drops a
// recovery that is held: its answer has not been queued.
func (o *Outbox) recoverBeforeClose() bool {
	switch r := o.recovery; {
	case r == nil:
		return false
	case r.Held():
		o.recovery = nil
		return false
	default:
		r.DropUnread()
		return !r.Empty()
	}
}

// abandonRecovery drops a recovery that the client has not read within half of the close timeout. The rest of it
// remains for the final frames.
func (o *Outbox) abandonRecovery() {
	o.endRecovery()
	o.setTimer(o.pool.closeTimeout - o.pool.closeTimeout/2)
	o.scheduleLocked()
}

// overflowLocked begins to close the outbox because its client is too slow. The queued frames are dropped.
func (o *Outbox) overflowLocked() {
	o.writer.count.overflowed.Add(1)
	o.overflowed = true
	o.dropQueues()
	o.beginClose(o.overflow()...)
}

func (o *Outbox) beginClose(final ...*frame.Frame) {
	o.closing = true
	o.setTimer(o.pool.closeTimeout)
	for _, f := range final {
		o.pushFinal(f)
	}
	o.scheduleLocked()
}

// pushFinal queues one of the final frames behind all others, without checking the limits.
func (o *Outbox) pushFinal(f *frame.Frame) {
	o.data.push(&o.pool.chunks, queuedFrame{frame: f, enqueued: o.enqueueTime()})
}

// Uncork begins to write the frames of an outbox that was opened with Config.Corked, behind head.
func (o *Outbox) Uncork(head *frame.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.owned = false
	if o.dead {
		o.finishLocked()
		return
	}
	o.control.pushFront(&o.pool.chunks, []queuedFrame{{frame: head}})
	o.scheduleLocked()
}

// Reject drops the queued frames of an outbox that was opened with Config.Corked, writes answer instead and closes the
// connection as Close does.
func (o *Outbox) Reject(answer *frame.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.owned = false
	if o.dead {
		o.finishLocked()
		return
	}
	o.dropQueues()
	o.beginClose(answer)
}

// dropQueues drops all frames that the owner has not dequeued.
func (o *Outbox) dropQueues() {
	o.control.clear()
	o.data.clear()
	o.recovery = nil
	o.dropIndex()
}

// PeerGone reports that the connection's reader has ended: after the client's close frame, the end of the stream or
// an error. It closes the socket at once, or as soon as the final frames of Close or an overflow have been
// written.
func (o *Outbox) PeerGone() {
	o.mu.Lock()
	o.peerGone = true
	flushing := o.closing && o.owned
	o.mu.Unlock()
	if !flushing {
		o.Abort()
	}
}

// Abort closes the socket at once and drops the queued frames. Further calls have no effect.
func (o *Outbox) Abort() {
	o.mu.Lock()
	if o.dead {
		o.mu.Unlock()
		return
	}
	o.dead = true
	o.stopTimer()
	o.mu.Unlock()

	defer func() {
		if recover() != nil {
			o.countPanic()
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.shut = true
		o.finishLocked()
	}()
	_ = CloseSocket(o.conn) // the reader gets the error too; halfClose has sent the alert of TLS
}

// finishLocked ends the outbox if its socket is closed and it has no owner.
func (o *Outbox) finishLocked() {
	if !o.shut || o.owned || o.ended {
		return
	}
	o.ended = true
	o.dropQueues()
	o.writer.unlink(o)
	if o.done != nil {
		close(o.done)
	}
}

// Done returns a channel that is closed when the socket is closed and no goroutine writes to it any more.
func (o *Outbox) Done() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done == nil {
		o.done = make(chan struct{})
		if o.ended {
			close(o.done)
		}
	}
	return o.done
}

// Overflowed reports whether the outbox closed itself because its client was too slow.
func (o *Outbox) Overflowed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.overflowed
}

// setTimer starts the timer, replacing a running one. The outbox must not be dead. A set timer counts in
// Pool.running, since its function will run in a goroutine.
func (o *Outbox) setTimer(d time.Duration) {
	o.stopTimer()
	o.pool.running.Add(1)
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		defer o.pool.running.Done()
		o.mu.Lock()
		if o.timer != t {
			o.mu.Unlock() // stopTimer came too late to stop this function
			return
		}
		o.timer = nil
		timedOut := false
		switch {
		case !o.closing:
			o.checkAge()
		case o.recovery != nil && len(o.recovery.final) > 0:
			o.abandonRecovery()
		default:
			timedOut = true
		}
		o.mu.Unlock()
		if timedOut {
			o.Abort()
		}
	})
	o.timer = t
}

func (o *Outbox) stopTimer() {
	if o.timer != nil && o.timer.Stop() {
		o.pool.running.Done()
	}
	o.timer = nil
}

// checkAge closes an outbox whose oldest frame has reached the maximum age, and otherwise restarts the timer. Only
// a draining outbox has this timer.
func (o *Outbox) checkAge() {
	p := o.pool
	age := time.Duration(p.clock()-o.oldest) * time.Millisecond
	if age < p.maxAge.Truncate(time.Millisecond) {
		o.setTimer(max(p.maxAge-age, time.Millisecond))
		return
	}
	o.overflowLocked()
}

// halfClose closes the write side of the connection if its type supports that. The error is ignored: the connection's
// reader will get it too.
func halfClose(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// CloseSocket closes a connection. tls.Conn.Close may block while it sends an alert, so the socket under a TLS
// connection is closed instead.
func CloseSocket(conn net.Conn) error {
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn()
	}
	return conn.Close()
}

// tcpConn returns the TCP connection below conn, or nil. Wrappers such as *tls.Conn lead to it by NetConn.
func tcpConn(conn net.Conn) *net.TCPConn {
	for {
		if tcp, ok := conn.(*net.TCPConn); ok {
			return tcp
		}
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = wrapper.NetConn()
	}
}

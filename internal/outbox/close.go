package outbox

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// Close begins to close the connection: nothing more is accepted, what waits is written, then the frames
// before, then final, which is to be a close frame. After that our half of the connection is closed, and
// the socket itself once the reader has called PeerGone: closing it while the client is still sending would
// reset the connection, and a reset can overtake the close frame.
//
// Close does not wait for any of that. After the pool's CloseTimeout the socket is closed however far it
// has come. Only the first call has an effect, and none after Abort.
func (o *Outbox) Close(final *frame.Frame, before ...*frame.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closing && !o.dead {
		o.beginClose(before...)
		o.pushLast(final)
	}
}

// overflowLocked begins to close the outbox because its client is too slow: what waits is dropped.
func (o *Outbox) overflowLocked() {
	o.writer.count.overflowed.Add(1)
	o.overflowed = true
	o.control.forget()
	o.data.forget()
	o.dropIndex()
	o.beginClose(o.overflow...)
}

func (o *Outbox) beginClose(last ...*frame.Frame) {
	o.closing = true
	o.arm(o.pool.closeTimeout)
	for _, f := range last {
		o.pushLast(f)
	}
	o.own()
}

// pushLast queues one of the last frames, behind everything and beyond the bounds.
func (o *Outbox) pushLast(f *frame.Frame) {
	o.data.push(&o.pool.chunks, entry{frame: f, at: o.stamp()})
}

// PeerGone tells the outbox that its reader has ended, because of the client's close frame, the end of the
// stream or an error. The socket is closed at once, unless Close or an overflow has begun and its frames
// are still being written: then as soon as they are.
func (o *Outbox) PeerGone() {
	o.mu.Lock()
	o.peerGone = true
	flushing := o.closing && o.owned
	o.mu.Unlock()
	if !flushing {
		o.Abort()
	}
}

// Abort closes the socket at once. What waits is lost. It may be called again.
func (o *Outbox) Abort() {
	o.mu.Lock()
	if o.dead {
		o.mu.Unlock()
		return
	}
	o.dead = true
	o.disarm()
	o.mu.Unlock()

	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.shut = true
		o.endLocked()
	}()
	closeSocket(o.conn)
}

// endLocked ends the outbox if its socket is closed and nobody owns it.
func (o *Outbox) endLocked() {
	if !o.shut || o.owned || o.ended {
		return
	}
	o.ended = true
	o.control.forget()
	o.data.forget()
	o.dropIndex()
	o.writer.unlink(o)
	if o.done != nil {
		close(o.done)
	}
}

// Done returns a channel that is closed when the socket is closed and nobody writes to it any more.
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

// Reason returns the close frame with which the outbox closed itself because its client was too slow, or
// nil if it did not.
func (o *Outbox) Reason() *frame.Frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.overflowed {
		return nil
	}
	return o.overflow[len(o.overflow)-1]
}

// arm sets the timer, in the place of one that is set. The outbox must not be dead. A set timer counts as
// running, since its function will be a goroutine.
func (o *Outbox) arm(d time.Duration) {
	o.disarm()
	o.pool.running.Add(1)
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		defer o.pool.running.Done()
		o.mu.Lock()
		if o.timer != t {
			o.mu.Unlock() // disarmed too late to be stopped
			return
		}
		o.timer = nil
		tooLong := o.closing
		if !tooLong {
			o.checkAge()
		}
		o.mu.Unlock()
		if tooLong {
			o.Abort()
		}
	})
	o.timer = t
}

func (o *Outbox) disarm() {
	if o.timer != nil && o.timer.Stop() {
		o.pool.running.Done()
	}
	o.timer = nil
}

// checkAge closes an outbox whose oldest frame has waited too long, and looks again later otherwise. Only a
// draining outbox has a timer for this.
func (o *Outbox) checkAge() {
	p := o.pool
	age := time.Duration(p.clock()-o.oldest) * time.Millisecond
	if age < p.maxAge.Truncate(time.Millisecond) {
		o.arm(max(p.maxAge-age, time.Millisecond))
		return
	}
	o.overflowLocked()
}

// halfClose tells the client that nothing more will come, where the connection can. An error is of no use:
// whoever reads from the connection will find out.
func halfClose(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// closeSocket closes the connection. Closing a TLS connection properly may wait for the client, so its
// socket is closed beneath it; halfClose has said what there is to say.
func closeSocket(conn net.Conn) {
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn()
	}
	_ = conn.Close()
}

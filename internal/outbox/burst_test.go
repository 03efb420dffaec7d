package outbox

import (
	"math"
	"net"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/internal/frame"
)

// A state that replaces a queued one needs no more room than the burst that a client may fall behind by: as long as
// events would be accepted, so is the state.
func TestOutbox_BurstConflatesStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(Options{MaxMessages: 8, MaxBytes: 1000})
		defer p.Close()
		server, client := net.Pipe()
		defer client.Close()
		b := bench{p, p.Open(server, Config{Variant: frame.V1}), client}
		b.plug(t)
		send(t, b.box, Queued, data("b", frame.State, 1, 0))
		for i := range 20 {
			send(t, b.box, Queued, data("a", frame.Event, i, 100))
		}
		send(t, b.box, Conflated, data("b", frame.State, 2, 0), data("b", frame.State, 3, 500))
		send(t, b.box, Queued, data("b", frame.Terminal, 4, 0))
		if got := numbers(t, mustRead(t, b.client, 23)[21:]); got != "a19 b4" && got != "b3+2 b4" {
			t.Errorf("the last messages are %s", got)
		}
	})
}

// After an overflow only the final frames wait, and the batch that is being written.
func TestOutbox_OverflowLeavesNothingPending(t *testing.T) {
	onPipe(t, Options{MaxMessages: 8}, func(t *testing.T, b bench) {
		b.plug(t)
		for i := range 8 {
			if b.box.Send(data("a", frame.Event, i, 1000)) == Dropped {
				break
			}
		}
		if p := b.box.Pending(); !b.box.Overflowed() || p.Frames > 3 || p.Bytes > 200 {
			t.Errorf("%+v are pending after the overflow", p)
		}
	})
}

// An answer after the end of the connection is dropped: an outbox without writers must not be put on their lists.
func TestRecovery_ReleaseAfterAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		defer client.Close()
		p := NewPool(Options{})
		c := slowToClose{server, make(chan struct{}), make(chan struct{})}
		o := p.Open(c, Config{Variant: frame.V1})
		o.Hold()
		go o.Abort()
		<-c.closing
		p.Close()
		o.Release(data("a", frame.Event, 1, 0))
		close(c.mayClose)
		<-o.Done() // or the bubble is deadlocked, which fails the test
	})
}

// slowToClose is a connection whose Close waits.
type slowToClose struct {
	net.Conn
	closing, mayClose chan struct{}
}

func (c slowToClose) Close() error {
	close(c.closing)
	<-c.mayClose
	return c.Conn.Close()
}

// The largest limits have the effect of none.
func TestOptions_LargestLimits(t *testing.T) {
	most := Options{
		MaxBytes: math.MaxInt, MaxMessages: math.MaxInt, MaxRecoveryBytes: math.MaxInt,
		MaxBurstBytes: math.MaxInt, MaxBurstMessages: math.MaxInt,
	}
	for _, opt := range []Options{most, {MaxBytes: math.MaxInt, MaxMessages: math.MaxInt}, {MaxRecoveryBytes: math.MaxInt}} {
		onLink(t, opt, 50, slowLine, func(t *testing.T, s *recoverySession) {
			for range 50 {
				s.store.publish(nil, "a", frame.Event, 400)
			}
			s.recover(t, "a", 0)
			for range 10 {
				s.store.publish(s.box, "a", frame.Event, 400)
			}
			if got := len(s.finish(t)); got < 50 {
				t.Errorf("%+v: %d messages came, want 50 at least", opt, got)
			}
		})
	}
}

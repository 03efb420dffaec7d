package outbox

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// isDone reports whether the outbox has ended.
func (b bench) isDone() bool {
	synctest.Wait()
	select {
	case <-b.box.Done():
		return true
	default:
		return false
	}
}

// wantDoneAfter lets d pass and wants the outbox to end then, not before.
func (b bench) wantDoneAfter(t *testing.T, d time.Duration) {
	t.Helper()
	<-time.After(d - time.Millisecond) // the bubble's clock, which moves by itself
	if b.isDone() {
		t.Errorf("the outbox had ended before %v", d)
	}
	<-time.After(2 * time.Millisecond)
	if !b.isDone() {
		t.Errorf("the outbox had not ended after %v", d)
	}
}

func TestOutbox_StuckClientIsClosedAfterMaxAge(t *testing.T) {
	onPipe(t, Options{MaxAge: 3 * time.Second, CloseTimeout: time.Second}, func(t *testing.T, b bench) {
		b.plug(t)
		<-time.After(2999 * time.Millisecond)
		synctest.Wait()
		send(t, b.box, Queued, data("a", frame.Event, 1, 0))
		if b.box.Overflowed() {
			t.Fatal("the outbox has given up too early")
		}
		<-time.After(2 * time.Millisecond)
		synctest.Wait()
		if !b.box.Overflowed() {
			t.Fatal("the outbox has not given up")
		}
		send(t, b.box, Dropped, data("a", frame.Event, 2, 0))
		b.wantDoneAfter(t, 999*time.Millisecond)
		if got := b.pool.Stats(); got.Overflowed != 1 {
			t.Errorf("counted %+v", got)
		}
	})
}

func TestOutbox_ClientClosedForAgeGetsCloseFrame(t *testing.T) {
	onPipe(t, Options{MaxAge: 3 * time.Second}, func(t *testing.T, b bench) {
		b.plug(t)
		send(t, b.box, Queued, data("a", frame.Event, 1, 0))
		<-time.After(4 * time.Second)
		got := mustRead(t, b.client, 2)
		if got[0].message(t).Upload != "plug" || got[1].closeCode() != 1013 || string(got[1].body[2:]) != "Slow consumer" {
			t.Errorf("the client got:\n%s", bodies(got))
		}
		synctest.Wait()
		b.box.PeerGone()
		if !b.isDone() {
			t.Error("the outbox has not ended with its reader")
		}
	})
}

// A client that always lags by less than the bound is healthy, however long its queue has not been empty.
func TestOutbox_ClientLaggingBelowMaxAgeStaysOpen(t *testing.T) {
	onPipe(t, Options{MaxAge: 3 * time.Second}, func(t *testing.T, b bench) {
		for i := range 2 {
			send(t, b.box, Queued, data("a", frame.Event, i, drainBatch))
		}
		for i := range 100 {
			<-time.After(1400 * time.Millisecond) // two of these are the age that each reaches
			mustRead(t, b.client, 1)
			send(t, b.box, Queued, data("a", frame.Event, 2+i, drainBatch))
		}
		if b.box.Overflowed() {
			t.Error("the client was taken for slow")
		}
	})
}

// The oldest queued frame determines the age, even if newer ones are recent.
func TestOutbox_AgeIsThatOfTheOldestFrame(t *testing.T) {
	onPipe(t, Options{MaxAge: 3500 * time.Millisecond}, func(t *testing.T, b bench) {
		for i := range 10 {
			send(t, b.box, Queued, data("a", frame.Event, i, drainBatch))
		}
		for range 3 {
			<-time.After(time.Second)
			mustRead(t, b.client, 1)
			send(t, b.box, Queued, data("a", frame.Event, 2, 0))
		}
		<-time.After(time.Second)
		if !b.box.Overflowed() {
			t.Error("the client was not taken for slow")
		}
	})
}

// When the timer looks and finds the oldest gone, it looks again when the next would be too old.
func TestOutbox_AgeTimerFollowsTheOldestFrame(t *testing.T) {
	onPipe(t, Options{MaxAge: 3 * time.Second}, func(t *testing.T, b bench) {
		send(t, b.box, Queued, data("a", frame.Event, 0, drainBatch))
		<-time.After(time.Second)
		send(t, b.box, Queued, data("a", frame.Event, 1, drainBatch))
		<-time.After(time.Second)
		mustRead(t, b.client, 1)
		<-time.After(1999 * time.Millisecond)
		if b.box.Overflowed() {
			t.Fatal("the outbox has given up too early")
		}
		<-time.After(2 * time.Millisecond)
		if !b.box.Overflowed() {
			t.Error("the outbox has not given up")
		}
	})
}

// The clock wraps after 49 days, here while the frame waits.
func TestOutbox_AgeSurvivesClockWrap(t *testing.T) {
	onPipe(t, Options{MaxAge: 3 * time.Second}, func(t *testing.T, b bench) {
		<-time.After((1<<32 - 1000) * time.Millisecond)
		b.plug(t)
		<-time.After(2999 * time.Millisecond)
		if b.box.Overflowed() {
			t.Fatal("the outbox has given up too early")
		}
		<-time.After(2 * time.Millisecond)
		if !b.box.Overflowed() {
			t.Error("the outbox has not given up")
		}
	})
}

// After an idle while, old times must not count.
func TestOutbox_AgeRestartsAfterIdleTime(t *testing.T) {
	onPipe(t, Options{MaxAge: 3 * time.Second}, func(t *testing.T, b bench) {
		for range 3 {
			b.plug(t)
			<-time.After(2 * time.Second)
			mustRead(t, b.client, 1)
			<-time.After(time.Hour)
		}
		b.plug(t)
		<-time.After(2 * time.Second)
		if b.box.Overflowed() {
			t.Error("the client was taken for slow")
		}
	})
}

func TestOutbox_CloseTimeoutBoundsFlush(t *testing.T) {
	onPipe(t, Options{CloseTimeout: 2 * time.Second}, func(t *testing.T, b bench) {
		b.plug(t)
		b.box.Close(frame.NewClose(1000, ""))
		<-time.After(time.Second)
		b.box.Close(frame.NewClose(1001, "")) // changes nothing
		b.box.PeerGone()                      // nor does this, while there is something to write
		b.wantDoneAfter(t, time.Second)
		if b.box.Overflowed() {
			t.Error("a graceful close counts as an overflow")
		}
	})
}

// While closing, only the close timeout applies.
func TestOutbox_MaxAgeDoesNotApplyWhileClosing(t *testing.T) {
	onPipe(t, Options{MaxAge: time.Second, CloseTimeout: 5 * time.Second}, func(t *testing.T, b bench) {
		b.plug(t)
		b.box.Close(frame.NewClose(1012, ""))
		<-time.After(4 * time.Second)
		if got := mustRead(t, b.client, 2); got[1].closeCode() != 1012 {
			t.Errorf("the client got:\n%s", bodies(got))
		}
	})
}

func TestOutbox_CloseTimeoutBoundsLinger(t *testing.T) {
	onPipe(t, Options{CloseTimeout: 2 * time.Second}, func(t *testing.T, b bench) {
		b.box.Close(frame.NewClose(1000, ""))
		mustRead(t, b.client, 1)
		b.wantDoneAfter(t, 2*time.Second)
		if _, err := readFrame(b.client); !errors.Is(err, io.EOF) {
			t.Errorf("after the linger the client read %v, want EOF", err)
		}
	})
}

func TestOutbox_CloseWritesQueuedThenBeforeThenFinal(t *testing.T) {
	onPipe(t, Options{MaxMessages: 2}, func(t *testing.T, b bench) {
		b.plug(t)
		send(t, b.box, Queued, data("a", frame.Event, 1, 0)) // the queue is full, which does not affect final frames
		b.box.Close(frame.NewClose(1012, "bye"), control(frame.Text, "one"), control(frame.Text, "two"))
		b.box.Close(frame.NewClose(1000, ""))
		send(t, b.box, Dropped, data("a", frame.Event, 2, 0), control(frame.Ping, ""))
		got := mustRead(t, b.client, 5)
		if got[1].message(t).Number != 1 || bodies(got[2:4]) != "one\ntwo\n" || got[4].closeCode() != 1012 {
			t.Errorf("the client got:\n%s", bodies(got))
		}
		if b.isDone() {
			t.Error("the outbox has not waited for its reader")
		}
		b.box.PeerGone()
		if !b.isDone() {
			t.Error("the outbox has not ended with its reader")
		}
	})
}

func TestOutbox_PeerGoneDuringFlushClosesAfterIt(t *testing.T) {
	onPipe(t, Options{}, func(t *testing.T, b bench) {
		b.plug(t)
		b.box.Close(frame.NewClose(1000, ""))
		b.box.PeerGone()
		mustRead(t, b.client, 2)
		if !b.isDone() {
			t.Error("the outbox still waits for a reader that has ended")
		}
	})
}

func TestOutbox_PeerGoneWithoutCloseEndsAtOnce(t *testing.T) {
	onPipe(t, Options{}, func(t *testing.T, b bench) {
		b.plug(t)
		b.box.PeerGone()
		if !b.isDone() {
			t.Error("the outbox still writes to a client that is gone")
		}
		send(t, b.box, Dropped, data("a", frame.Event, 1, 0))
	})
}

func TestOutbox_OverflowSendsFramesOfConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		p := NewPool(Options{MaxMessages: 2}.withoutBurst())
		defer p.Close()
		calls := 0
		o := p.Open(server, Config{Overflow: func() []*frame.Frame {
			calls++
			return []*frame.Frame{control(frame.Text, "reconnect"), frame.NewClose(1013, "mine")}
		}})
		send(t, o, Queued, data("a", frame.Event, 1, 0))
		synctest.Wait()
		send(t, o, Queued, data("a", frame.Event, 2, 0))
		send(t, o, Dropped, data("a", frame.Event, 3, 0), data("a", frame.Event, 4, 0))
		if got := mustRead(t, client, 3); string(got[1].body) != "reconnect" || got[2].closeCode() != 1013 {
			t.Errorf("the client got:\n%s", bodies(got))
		}
		if !o.Overflowed() || calls != 1 {
			t.Errorf("overflowed: %v, after %d calls of Overflow, want one", o.Overflowed(), calls)
		}
	})
}

func TestOutbox_FrameLargerThanLimitOverflowsIdleOutbox(t *testing.T) {
	onPipe(t, Options{MaxBytes: 100}, func(t *testing.T, b bench) {
		send(t, b.box, Dropped, data("a", frame.Event, 1, 100))
		if got := mustRead(t, b.client, 1); got[0].closeCode() != 1013 {
			t.Errorf("the client got:\n%s", bodies(got))
		}
	})
}

func TestPool_CloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(Options{})
		var boxes []*Outbox
		for i := range 10 {
			server, _ := net.Pipe()
			o := p.Open(server, Config{})
			boxes = append(boxes, o)
			if i%3 != 0 {
				send(t, o, Queued, data("a", frame.Event, 1, 0))
			}
			if i%3 == 2 {
				o.Close(frame.NewClose(1000, ""))
			}
		}
		p.Close()
		p.Close()
		server, _ := net.Pipe()
		for _, o := range append(boxes, p.Open(server, Config{})) {
			<-o.Done()
			send(t, o, Dropped, data("a", frame.Event, 2, 0))
			o.Close(frame.NewClose(1000, ""))
			o.Abort()
			o.PeerGone()
		}
	})
}

func TestOutbox_PanicEndsOneConnectionOnly(t *testing.T) {
	var stacks [][]byte
	report := func(stack []byte) { stacks = append(stacks, stack) }
	onPipe(t, Options{Writers: 1, OnPanic: report}, func(t *testing.T, b bench) {
		inner, _ := net.Pipe()
		o := b.pool.Open(hostileConn{inner}, Config{})
		send(t, o, Queued, data("a", frame.Event, 1, 0))
		<-o.Done()
		// V1 inserts fields before the closing brace, which is missing here: the writer itself panics.
		server, client := tcpPair(t)
		o = b.pool.Open(server, Config{Variant: frame.V1})
		send(t, o, Queued, frame.ForUpload(frame.Message{UploadID: "a", Offset: 1}))
		_, _ = io.Copy(io.Discard, client)
		<-o.Done()
		send(t, b.box, Queued, data("a", frame.Event, 1, 0))
		mustRead(t, b.client, 1)
		if got := b.pool.Stats().Panics; got != 2 {
			t.Errorf("counted %d panics, want 2", got)
		}
		if len(stacks) != 2 || !bytes.Contains(stacks[0], []byte("hostileConn")) || bytes.Contains(stacks[0], []byte("a bug")) {
			t.Errorf("reported were %d stacks, the first:\n%s", len(stacks), stacks[0])
		}
	})
}

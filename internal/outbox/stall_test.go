package outbox

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// A stalling is a batch on its way to a socket: the test plays the writer and decides when and where the
// socket refuses bytes.
type stalling struct {
	bench
	batch batch
}

// takeOver makes the test the owner, so that the pool's writer leaves the outbox alone.
func (b bench) takeOver() *stalling {
	b.box.mu.Lock()
	defer b.box.mu.Unlock()
	b.box.owned = true
	return &stalling{bench: b}
}

// take dequeues the queued frames as a writer does.
func (s *stalling) take(t *testing.T) {
	t.Helper()
	if !s.box.next(&s.batch, writerBatch) {
		t.Fatal("nothing to write")
	}
	s.batch.encode(s.box)
}

// onStall begins with the frames being on their way.
func onStall(t *testing.T, frames []*frame.Frame, test func(t *testing.T, s *stalling)) {
	t.Helper()
	onPipe(t, Options{MaxMessages: 16}, func(t *testing.T, b bench) {
		s := b.takeOver()
		send(t, s.box, Queued, frames...)
		s.take(t)
		test(t, s)
	})
}

// refuse makes the socket accept only n bytes, and returns the client's view: these bytes and the following ones.
func (s *stalling) refuse(n int) io.Reader {
	taken := bytes.Clone(s.batch.buf[:n])
	s.box.stall(&s.batch, n)
	return io.MultiReader(bytes.NewReader(taken), s.client)
}

func TestOutbox_RefusedFramesAreRequeuedInOrder(t *testing.T) {
	frames := []*frame.Frame{
		control(frame.Ping, "first"), control(frame.Text, "second"),
		data("a", frame.State, 1, 0), data("b", frame.State, 1, 0), data("c", frame.Event, 1, 0),
	}
	var all []byte
	for _, f := range frames {
		all = f.Append(all, frame.V1, 0)
	}
	for n := range all {
		onStall(t, frames, func(t *testing.T, s *stalling) {
			send(t, s.box, Queued, data("d", frame.Event, 1, 0)) // comes while the socket is being tried
			got := mustRead(t, s.refuse(n), 6)
			if string(got[0].body) != "first" || string(got[1].body) != "second" {
				t.Errorf("after %d bytes the control frames came as:\n%s", n, bodies(got[:2]))
			}
			if got := numbers(t, got[2:]); got != "a1 b1 c1 d1" {
				t.Errorf("after %d bytes the messages came as %s", n, got)
			}
			synctest.Wait()
			if s.box.data != (queue{}) || s.box.control != (queue{}) {
				t.Errorf("after %d bytes a drained outbox holds %+v and %+v", n, s.box.control, s.box.data)
			}
		})
	}
}

// A requeued state may be replaced, unless the socket has accepted a part of it.
func TestOutbox_RequeuedStateMayBeReplaced(t *testing.T) {
	onStall(t, []*frame.Frame{data("a", frame.State, 1, 0), data("b", frame.State, 1, 0)},
		func(t *testing.T, s *stalling) {
			// An index is created during the write; it does not contain the frames requeued afterwards.
			for range 8 {
				send(t, s.box, Queued, data("c", frame.Event, 1, 0))
			}
			send(t, s.box, Queued, data("d", frame.State, 1, 0))
			client := s.refuse(1)
			send(t, s.box, Queued, data("a", frame.State, 2, 0))
			send(t, s.box, Conflated, data("b", frame.State, 2, 0), data("d", frame.State, 2, 0))
			if got := numbers(t, mustRead(t, client, 12)); got != "a1 b2+1 c1 c1 c1 c1 c1 c1 c1 c1 d2+1 a2" {
				t.Errorf("the client got %s", got)
			}
		})
}

func TestOutbox_RequeuedPongPrecedesNewerPong(t *testing.T) {
	ping := control(frame.Ping, "p")
	onStall(t, []*frame.Frame{control(frame.Text, "{}"), ping, control(frame.Pong, "1")},
		func(t *testing.T, s *stalling) {
			send(t, s.box, Queued, control(frame.Pong, "2"), ping)
			if got := bodies(mustRead(t, s.refuse(1), 4)); got != "{}\n1\n2\np\n" {
				t.Errorf("the client got:\n%s", got)
			}
			synctest.Wait()
			if s.box.owned {
				t.Error("more than that was written")
			}
		})
}

func TestOutbox_OverflowDuringWriteIsNotRequeued(t *testing.T) {
	onStall(t, []*frame.Frame{data("a", frame.Event, 1, 0), data("b", frame.Event, 1, 0)},
		func(t *testing.T, s *stalling) {
			send(t, s.box, Dropped, data("c", frame.Event, 1, 1<<20))
			got := mustRead(t, s.refuse(1), 2)
			if got[0].message(t).Upload != "a" || got[1].closeCode() != 1013 {
				t.Errorf("the client got:\n%s", bodies(got))
			}
		})
}

func TestOutbox_RefusedFinalFrameIsRequeued(t *testing.T) {
	onPipe(t, Options{MaxBytes: 100}, func(t *testing.T, b bench) {
		s := b.takeOver()
		send(t, s.box, Dropped, data("a", frame.Event, 1, 100))
		s.take(t)
		if got := mustRead(t, s.refuse(0), 1); got[0].closeCode() != 1013 {
			t.Errorf("the client got:\n%s", bodies(got))
		}
	})
}

// A recovery ends when its last frame is written, also if the socket refuses the frames of another upload or takes all
// bytes late: Close does not wait for anything then.
func TestRecovery_EndsAfterStall(t *testing.T) {
	size := 0
	for n := 0; n <= size; n++ {
		onPipe(t, Options{MaxMessages: 16, CloseTimeout: 10 * time.Second}, func(t *testing.T, b bench) {
			s := newStore(100)
			for range 2 {
				s.publish(nil, "a", frame.Event, 0)
				s.publish(nil, "b", frame.Event, 0)
			}
			play := b.takeOver()
			s.recover(b.box, "a", 0)
			s.recover(b.box, "b", 0)
			play.take(t)
			size = len(play.batch.buf)
			client := play.refuse(n)
			if got, want := numbers(t, mustRead(t, client, 6)), "a-1 a1 a2 b-1 b1 b2"; got != want {
				t.Errorf("after %d bytes the client got %s, want %s", n, got, want)
			}
			synctest.Wait()
			if b.box.recovery != nil {
				t.Errorf("after %d bytes an idle outbox has a recovery", n)
			}
			start := time.Now()
			b.box.Close(frame.NewClose(1012, "Server reloading"))
			go readUntilGone(b.box, b.box.conn)
			f, err := readFrame(client)
			if waited := time.Since(start); f.closeCode() != 1012 || waited > 0 {
				t.Errorf("after %d bytes the client got %v, %v after %v, want 1012 at once", n, f.closeCode(), err, waited)
			}
		})
	}
}

// The final frames follow the last queued frame of a recovery even if that has left something behind.
func TestRecovery_NeverWithholdsFinalFrames(t *testing.T) {
	onPipe(t, Options{}, func(t *testing.T, b bench) {
		b.takeOver()
		s := newStore(1)
		s.publish(nil, "a", frame.Event, 2*drainPortion)
		s.recover(b.box, "a", 0)
		b.box.recovery.exemptWithin = 1000
		start := time.Now()
		b.box.Close(frame.NewClose(1012, "Server reloading"))
		b.box.writer.enqueue(b.box)
		go readUntilGone(b.box, b.box.conn)
		got := mustRead(t, b.client, 3)
		if waited := time.Since(start); got[2].closeCode() != 1012 || waited > 0 {
			t.Errorf("the client got %v after %v, want 1012 at once", got[2].closeCode(), waited)
		}
	})
}

// However long one connection's queue is, the writer serves its other connections.
func TestWriter_LongQueueDoesNotDelayOtherConnections(t *testing.T) {
	p := NewPool(Options{Writers: 1, MaxBytes: 64 << 20})
	defer p.Close()
	var order []byte // the outboxes in the order of the writes, all of one goroutine
	begun, proceed := make(chan struct{}), make(chan struct{})
	open := func(trace func()) *Outbox { return openRaw(p, tracedConn{newNullConn(t), trace}, Config{}) }
	first := open(func() { close(begun); <-proceed })
	long := open(func() { order = append(order, 'L') })
	short := open(func() { order = append(order, 's') })

	send(t, first, Queued, data("a", frame.Event, 1, 0))
	<-begun
	for range maxBatchesPerTurn + 2 {
		send(t, long, Queued, data("a", frame.Event, 1, writerBatch))
	}
	send(t, short, Queued, data("a", frame.Event, 1, 0))
	close(proceed)
	eventually(t, "all is written", func() bool { return p.Stats().Frames == maxBatchesPerTurn+4 })
	if got, want := string(order), string(bytes.Repeat([]byte("L"), maxBatchesPerTurn))+"sLL"; got != want {
		t.Errorf("the order of writes was %s, want %s", got, want)
	}
	eventually(t, "nothing is held", func() bool {
		long.mu.Lock()
		defer long.mu.Unlock()
		return long.data == queue{}
	})
}

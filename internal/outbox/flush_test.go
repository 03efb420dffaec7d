//go:build unix

package outbox

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// sendDeferred sends a frame and returns whether the test owns the outbox now.
func sendDeferred(t *testing.T, o *Outbox, f *frame.Frame) bool {
	t.Helper()
	outcome, flush := o.SendDeferred(f)
	if outcome != Queued {
		t.Errorf("the outcome is %v, want Queued", outcome)
	}
	return flush
}

// TestFlush_WritesWhatWasQueuedSince: frames of others that are queued before Flush are written by it, in order.
func TestFlush_WritesWhatWasQueuedSince(t *testing.T) {
	p, o, client := openTCP(t, Options{})
	if !sendDeferred(t, o, data("a", frame.Event, 0, 0)) {
		t.Fatal("the caller does not own an idle outbox")
	}
	if sendDeferred(t, o, data("a", frame.Event, 1, 0)) {
		t.Error("the outbox has two owners")
	}
	send(t, o, Queued, data("a", frame.Event, 2, 0))
	if s := p.Stats(); s.Writes != 0 {
		t.Errorf("%d writes before Flush", s.Writes)
	}
	o.Flush()
	if s := p.Stats(); s.Writes != 1 || s.Frames != 3 {
		t.Errorf("%d frames in %d writes, want 3 in one", s.Frames, s.Writes)
	}
	for i, r := range mustRead(t, client, 3) {
		if m := r.message(t); m.Number != i {
			t.Errorf("message %d came as number %d", m.Number, i)
		}
	}
	if !sendDeferred(t, o, data("a", frame.Event, 3, 0)) {
		t.Error("the outbox is not idle after Flush")
	}
	o.Flush()
	mustRead(t, client, 1)
}

// TestFlush_DoesNotWaitForTheClient: the bytes that the socket refuses are left to a drain goroutine.
func TestFlush_DoesNotWaitForTheClient(t *testing.T) {
	p, o, client := openTCP(t, roomy)
	const bytes = 8 << 20 // more than the buffers hold
	if !sendDeferred(t, o, data("a", frame.Event, 0, bytes)) {
		t.Fatal("the caller does not own an idle outbox")
	}
	o.Flush()
	if s := p.Stats(); s.Stalled != 1 {
		t.Errorf("%d connections are stalled, want 1", s.Stalled)
	}
	if sendDeferred(t, o, data("a", frame.Event, 1, 0)) {
		t.Error("a stalled outbox has two owners")
	}
	for i, r := range mustRead(t, client, 2) {
		if m := r.message(t); m.Number != i {
			t.Errorf("message %d came as number %d", m.Number, i)
		}
	}
}

// TestFlush_AfterTheEnd: an outbox that is aborted, or whose pool is closed, before its owner flushes it ends then.
func TestFlush_AfterTheEnd(t *testing.T) {
	for name, end := range map[string]func(p *Pool, o *Outbox){
		"abort": func(_ *Pool, o *Outbox) { o.Abort() },
		"close": func(p *Pool, _ *Outbox) { p.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p, o, _ := openTCP(t, Options{})
			if !sendDeferred(t, o, data("a", frame.Event, 0, 0)) {
				t.Fatal("the caller does not own an idle outbox")
			}
			end(p, o)
			select {
			case <-o.Done():
				t.Error("the outbox has ended although it has an owner")
			default:
			}
			o.Flush()
			<-o.Done()
			if _, flush := o.SendDeferred(data("a", frame.Event, 1, 0)); flush {
				t.Error("an outbox that has ended has an owner")
			}
		})
	}
}

// TestFlush_BesidePoolClose: Close waits for each Flush, and no goroutine is started after it.
func TestFlush_BesidePoolClose(t *testing.T) {
	p, o, _ := openTCP(t, roomy)
	var publishers sync.WaitGroup
	for range 2 {
		publishers.Go(func() {
			for {
				outcome, flush := o.SendDeferred(data("a", frame.Event, 0, 64<<10))
				if flush {
					o.Flush()
				}
				if outcome == Dropped {
					return
				}
			}
		})
	}
	eventually(t, "something was written", func() bool { return p.Stats().Bytes > 0 })
	p.Close()
	publishers.Wait()
	<-o.Done()
}

// TestFlush_LeavesBurstsToTheWriters: a few frames may be flushed at once, many may not, and none while they keep coming.
func TestFlush_LeavesBurstsToTheWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(Options{})
		defer p.Close()
		flushes := 0
		for flushes < 1000 && p.mayFlush() {
			flushes++
		}
		if want := int(flushAhead/flushInterval) + 1; flushes != want {
			t.Errorf("%d flushes at once are allowed, want %d", flushes, want)
		}
		for range 1000 {
			<-time.After(flushInterval / 2)
			if p.mayFlush() {
				t.Fatal("a frame of a long burst may be flushed")
			}
		}
		<-time.After(2 * flushAhead)
		for range 1000 {
			<-time.After(flushInterval)
			if !p.mayFlush() {
				t.Fatal("a frame may not be flushed although few come")
			}
		}
	})
}

// TestFlush_SurvivesPanics: a connection that panics is aborted, and counted.
func TestFlush_SurvivesPanics(t *testing.T) {
	p := NewPool(Options{})
	defer p.Close()
	conn := tracedConn{newNullConn(t), func() { panic("a bug in somebody's connection") }}
	o := openRaw(p, conn, Config{})
	if !sendDeferred(t, o, data("a", frame.Event, 0, 0)) {
		t.Fatal("the caller does not own an idle outbox")
	}
	o.Flush()
	<-o.Done()
	if s := p.Stats(); s.Panics != 1 {
		t.Errorf("%d panics are counted, want 1", s.Panics)
	}
}

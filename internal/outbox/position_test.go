package outbox

import (
	"bytes"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// A new epoch that begins while messages of the former one are unread is recovered from its begin: all of its messages
// are in the history.
func TestRecovery_NewEpochReplacesUnread(t *testing.T) {
	onLink(t, Options{MaxRecoveryBytes: 5000}, 1000, slowLine, func(t *testing.T, s *recoverySession) {
		for range 40 {
			s.store.publish(nil, "a", frame.Event, 300)
		}
		s.recover(t, "a", 0)
		if outcome := s.store.forget(s.box, "a"); outcome != Queued {
			t.Fatalf("the new epoch was not queued: %v", outcome)
		}
		for range 60 {
			s.store.publish(s.box, "a", frame.Event, 500)
		}
		resets, last := 0, 0
		for _, m := range s.finish(t) {
			switch {
			case m.Number == -2:
				resets++
				last = 0
			case resets > 0:
				last++
			}
		}
		if resets != 1 || last != 60 {
			t.Errorf("%d new positions and %d messages of the new epoch came, want 1 and 60", resets, last)
		}
	})
}

// A base connection gets the first message of a new epoch also if that has to be read from the history.
func TestRecovery_BaseContinuesInNewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		p := NewPool(Options{MaxRecoveryBytes: 5000})
		defer p.Close()
		s := newStore(1000)
		box := p.Open(server, Config{Variant: frame.Base})
		stream := link(client, slowLine)
		for range 13 {
			s.publish(nil, "a", frame.Event, 300)
		}
		s.recover(box, "a", 0)
		s.epochs["a"]++
		delete(s.logs, "a")
		for range 5 {
			s.publish(box, "a", frame.Event, 4000)
		}
		<-time.After(time.Minute)
		if box.Overflowed() {
			t.Fatal("the connection was closed")
		}
		box.Close(frame.NewClose(1000, ""))
		go readUntilGone(box, server)
		frames, err := readFrames(bytes.NewReader(<-stream))
		if err != nil || len(frames) != 19 {
			t.Errorf("%d frames came, %v, want 18 messages and the close frame", len(frames), err)
		}
	})
}

// During a hold, live messages of an upload without missed messages are read later if they do not fit.
func TestRecovery_LiveMessagesOfHeldUploadsAreRead(t *testing.T) {
	onLink(t, Options{MaxRecoveryBytes: 1000}, 1000, slowLine, func(t *testing.T, s *recoverySession) {
		for range 20 {
			s.store.publish(nil, "a", frame.Event, 400)
		}
		s.box.Hold()
		s.recover(t, "a", 0)
		s.since["b"] = 0
		s.box.Recover(Replay{UploadID: "b", Source: s.store})
		for range 3 {
			if outcome, _ := s.store.publish(s.box, "b", frame.Event, 400); outcome != Queued {
				t.Fatalf("a live message returned %d", outcome)
			}
		}
		s.box.Release(ack("b"))
		s.finish(t)
	})
}

// Frames of a recovery that a socket refuses, and that a resume has replaced, do not follow the answer of the resume; an
// acknowledgement among them precedes it. The socket accepts the batch up to each end of a frame, and all but a byte of it.
func TestRecovery_RefusedFramesDoNotFollowALaterAnswer(t *testing.T) {
	ends := []int{0}
	for i := 0; i < 2*len(ends); i++ {
		n := max(0, ends[i/2]-i%2)
		onPipe(t, Options{MaxMessages: 16}, func(t *testing.T, b bench) {
			s := newStore(100)
			for range 6 {
				s.publish(nil, "a", frame.Event, 0)
			}
			play := b.takeOver()
			send(t, b.box, Queued, data("b", frame.Event, 1, 0))
			first := append([]*frame.Frame{reset("a", frame.Start{Epoch: s.epoch("a")})}, s.logs["a"]...)
			b.box.Recover(Replay{UploadID: "a", Frames: first, Source: s})
			play.take(t)
			ends = append([]int{0}, play.batch.ends...)
			b.box.Hold()
			b.box.Recover(Replay{UploadID: "a", Frames: s.logs["a"][3:], Source: s})
			send(t, b.box, Queued, data("b", frame.Event, 2, 2*writerBatch))
			b.box.Release(control(frame.Text, `{"u":"answer"}`))
			client := play.refuse(n)
			if got := numbers(t, mustRead(t, client, 2)); got != "b1 a-2" {
				t.Errorf("after %d bytes %s came first", n, got)
			}
			answered, next := false, 1
			for next <= 6 || !answered {
				m := mustRead(t, client, 1)[0].message(t)
				switch {
				case m.Upload == "b" && m.Number == 2 && !answered:
				case m.Upload == "answer":
					answered, next = true, 4
				case m.Number != next:
					t.Fatalf("after %d bytes message %d came, want %d; answered: %v", n, m.Number, next, answered)
				default:
					next++
				}
			}
		})
	}
}

// A larger state that replaces a queued one counts against the limit too.
func TestRecovery_ReplacingStatesAreBounded(t *testing.T) {
	const limit = 10_000
	onLink(t, Options{MaxRecoveryBytes: limit}, 1000, slowLine, func(t *testing.T, s *recoverySession) {
		for range 15 {
			s.store.publish(nil, "u0", frame.Event, 300)
		}
		for u := range 10 {
			s.store.publish(nil, fmt.Sprint("u", u), frame.Event, 10)
			s.recover(t, fmt.Sprint("u", u), 0)
		}
		synctest.Wait()
		for _, size := range []int{1, 3000} {
			for u := range 10 {
				s.store.publish(s.box, fmt.Sprint("u", u), frame.State, size)
			}
		}
		if got := s.box.Pending().RecoveryBytes; got > limit {
			t.Errorf("%d bytes are queued, the limit is %d", got, limit)
		}
		s.finish(t)
	})
}

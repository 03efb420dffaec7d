package outqueue_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/manager/outqueue"
)

// A new epoch that begins while messages of the former one are unread is replayed from its begin.
func TestReplay_NewEpochReplacesUnread(t *testing.T) {
	m, q := recovering(t, outqueue.Options{Variant: manager.VariantV1, MaxBytes: 300})
	if err := m.Forget(t.Context(), "cat"); err != nil {
		t.Fatal(err)
	}
	publishTo(t, m, "cat", 10)
	all := offsets(q)
	if n := len(all); n < 10 || fmt.Sprint(all[n-10:]) != "[1 2 3 4 5 6 7 8 9 10]" {
		t.Errorf("messages %v came, want all of the new epoch in the end", all)
	}
}

// A closed queue announces no position before messages that it does not return.
func TestReplay_ClosedQueueAnnouncesNoPositionAhead(t *testing.T) {
	m, q := recovering(t, outqueue.Options{Variant: manager.VariantV1, MaxBytes: 300})
	err := m.SubscribeConn(t.Context(), "ann", q, "cat", manager.SubscribeOptions{Acknowledge: true})
	if err != nil {
		t.Fatal(err)
	}
	q.Close(manager.ServerReloading)
	newest := uint64(0)
	for message, ok := q.TryNext(); ok; message, ok = q.TryNext() {
		if at, acknowledges := message.Start(); acknowledges && at.Offset > newest {
			t.Errorf("position %d was announced behind message %d", at.Offset, newest)
		}
		newest = max(newest, message.Offset())
	}
}

// Replays that wait for their answer do not age: the consumer cannot get them.
func TestReplay_HeldReplaysDoNotAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := outqueue.New(outqueue.Options{Variant: manager.VariantV1, MaxAge: 3 * time.Second})
		for n, held := range []time.Duration{2 * time.Second, time.Minute} {
			q.HoldReplays()
			q.Replay(manager.Replay{UploadID: "a", Frames: []*manager.Frame{message("a", manager.ClassEvent, 1+n)}})
			<-time.After(held)
			q.ReleaseReplays(message("", manager.ClassEvent, 9))
			<-time.After(2 * time.Second)
			if got, want := fmt.Sprint(offsets(q)), fmt.Sprintf("[9 %d]", 1+n); got != want {
				t.Errorf("messages %s came, want %s", got, want)
			}
		}
		q.HoldReplays()
		q.ReleaseReplays(nil) // without an answer
		q.Abort()
	})
}

// source delivers nothing, and notes the positions from which it is read.
type source struct{ read []manager.Position }

func (s *source) Read(_, epoch string, after uint64, deliver func([]*manager.Frame)) {
	s.read = append(s.read, manager.Position{Epoch: epoch, Offset: after})
	deliver(nil)
}

// Behind a new position a replay is read from there, also within the epoch: forwards and backwards.
func TestReplay_ReadsOnFromNewPosition(t *testing.T) {
	for _, start := range []uint64{2, 50} {
		for _, acknowledged := range []bool{true, false} {
			q := outqueue.New(outqueue.Options{Variant: manager.VariantV1, MaxBytes: 400})
			at := func(offset uint64, size int) *manager.Frame {
				return frame.ForUpload(frame.Message{
					UploadID: "a", Epoch: "e", Offset: offset, Body: fmt.Appendf(nil, `{"pad":"%*d"}`, size, 0),
				})
			}
			s := &source{}
			q.Replay(manager.Replay{
				UploadID: "a", Frames: []*manager.Frame{at(10, 100)}, Position: manager.Position{Epoch: "e", Offset: 9}, Source: s,
			})
			if acknowledged {
				q.Send(frame.NewAcknowledgement("a", frame.Start{Epoch: "e", Offset: start}, []byte("{}")))
			}
			q.Send(at(start+1, 300))
			offsets(q)
			if want := (manager.Position{Epoch: "e", Offset: start}); len(s.read) != 1 || s.read[0] != want {
				t.Errorf("the source was read at %v, want %v", s.read, want)
			}
			q.Abort()
		}
	}
}

// Under pressure a newer state takes the place of one that is queued behind a replay.
func TestReplay_ReplacesStatesUnderPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := create(t, manager.Options{})
		q := outqueue.New(outqueue.Options{Variant: manager.VariantV1})
		defer func() {
			q.Abort()
			_ = m.Close(context.Background())
		}()
		q.Replay(manager.Replay{UploadID: "a", Frames: []*manager.Frame{message("a", manager.ClassState, 1)}})
		for n := 2; n <= 4; n++ {
			q.Send(message("a", manager.ClassState, n))
		}
		<-time.After(2 * time.Second)
		if outcome := q.Send(message("a", manager.ClassState, 5)); outcome != manager.Conflated {
			t.Errorf("the outcome is %d", outcome)
		}
		if got := fmt.Sprint(offsets(q)); got != "[1 2 3 5]" {
			t.Errorf("messages %s came, want [1 2 3 5]", got)
		}
	})
}

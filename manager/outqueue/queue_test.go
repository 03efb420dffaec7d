package outqueue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/manager/outqueue"
)

// message returns a frame with a number.
func message(uploadID string, class manager.Class, number int) *manager.Frame {
	return keyed(uploadID, "", class, number)
}

// keyed is like message, with a state key.
func keyed(uploadID, key string, class manager.Class, number int) *manager.Frame {
	return frame.ForUpload(frame.Message{
		UploadID: uploadID, StateKey: key, Class: class, Offset: uint64(number),
		Body: fmt.Appendf(nil, `{"n":%d}`, number),
	})
}

// wantClosed checks that Next returns a *ClosedError.
func wantClosed(t *testing.T, q *outqueue.Queue, reason manager.CloseReason) {
	t.Helper()
	_, err := q.Next(t.Context())
	var closed *outqueue.ClosedError
	if !errors.As(err, &closed) || closed.Reason != reason {
		t.Errorf("Next returned %v, want a *ClosedError with %v", err, reason)
	}
	select {
	case <-q.Done():
	default:
		t.Error("Done is not closed")
	}
}

// The zero value is a queue with the default options, whichever method comes first.
func TestQueue_ZeroValueIsReady(t *testing.T) {
	for name, first := range map[string]func(*outqueue.Queue){
		"Send":  func(q *outqueue.Queue) { q.Send(message("a", manager.ClassState, 1)) },
		"Done":  func(q *outqueue.Queue) { q.Done() },
		"Next":  func(q *outqueue.Queue) { q.TryNext() },
		"Hold":  func(q *outqueue.Queue) { q.HoldReplays(); q.ReleaseReplays(nil) },
		"Close": func(q *outqueue.Queue) { q.Close(manager.CloseReason{}) },
		"Abort": func(q *outqueue.Queue) { q.Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			q := new(outqueue.Queue)
			first(q)
			if outcome := q.Send(message("a", manager.ClassState, 2)); outcome == manager.Queued {
				if m, err := q.Next(t.Context()); err != nil || m.Offset() == 0 {
					t.Errorf("Next: %v", err)
				}
				for _, more := q.TryNext(); more; _, more = q.TryNext() {
				}
			}
			q.Close(manager.CloseReason{})
			wantClosed(t, q, manager.NormalClosure)
		})
	}
}

// For any sequence of sends and reads: messages of an upload come in their order, only states are replaced, by
// newer ones of the same upload with no other message between, and each one is accounted for.
func TestQueue_AnySequence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := outqueue.New(outqueue.Options{MaxMessages: 6, MaxBytes: -1, MaxAge: -1})
		sent, got, last := 0, 0, map[string]uint64{}
		newest := map[string]uint64{} // states that must come, by upload and key
		kept := map[string][]int{}    // events and terminal messages that must come
		receive := func() bool {
			m, ok := q.TryNext()
			if !ok {
				return false
			}
			id := m.UploadID()
			if m.Offset() <= last[id] {
				t.Fatalf("%s: message %d came after %d", id, m.Offset(), last[id])
			}
			last[id] = m.Offset()
			if key := id + m.StateKey(); m.Class() == manager.ClassState && newest[key] == m.Offset() {
				delete(newest, key)
			}
			got += 1 + int(m.Skipped)
			if m.Class() != manager.ClassState {
				if len(kept[id]) == 0 || uint64(kept[id][0]) != m.Offset() {
					t.Fatalf("%s: message %d came, due are %v", id, m.Offset(), kept[id])
				}
				kept[id] = kept[id][1:]
			} else if len(kept[id]) > 0 && uint64(kept[id][0]) < m.Offset() {
				t.Fatalf("%s: state %d has overtaken %d", id, m.Offset(), kept[id][0])
			}
			return true
		}
		t.Repeat(map[string]func(*rapid.T){
			"Send": func(t *rapid.T) {
				id := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "upload")
				class := rapid.SampledFrom([]manager.Class{
					manager.ClassState, manager.ClassState, manager.ClassEvent, manager.ClassTerminal,
				}).Draw(t, "class")
				sent++
				key := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "key")
				if q.Send(keyed(id, key, class, sent)) == manager.Dropped {
					t.Fatal("a burst was refused")
				}
				if class == manager.ClassState {
					newest[id+key] = uint64(sent)
				}
				if class != manager.ClassState {
					kept[id] = append(kept[id], sent)
				}
			},
			"Next": func(*rapid.T) { receive() },
		})
		for receive() {
		}
		if len(newest) > 0 {
			t.Fatalf("the newest states did not come: %v", newest)
		}
		if got != sent {
			t.Fatalf("%d messages came or were replaced, %d were sent", got, sent)
		}
	})
}

// A client that keeps up gets every state, a client under pressure the newest with the number of those it replaced.
func TestQueue_ReplacesStatesUnderPressureOnly(t *testing.T) {
	q := outqueue.New(outqueue.Options{Variant: manager.VariantV1, MaxMessages: 8})
	for i := 1; i <= 100; i++ {
		if o := q.Send(message("a", manager.ClassState, i)); o == manager.Dropped || i <= 4 && o != manager.Queued {
			t.Fatalf("state %d: outcome %d", i, o)
		}
	}
	var all []string
	for m, ok := q.TryNext(); ok; m, ok = q.TryNext() {
		all = append(all, string(m.AppendJSON(nil)))
	}
	want := `{"n":1,"offset":1,"upload_id":"a"} {"n":2,"offset":2,"upload_id":"a"} {"n":3,"offset":3,"upload_id":"a"} ` +
		`{"n":100,"offset":100,"upload_id":"a","skipped":96}`
	if got := strings.Join(all, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A consumer that has had a second is slow: a message beyond the limits closes the connection, and so does age.
func TestQueue_ClosesSlowConsumers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		burst := outqueue.New(outqueue.Options{MaxMessages: 2})
		send := func(q *outqueue.Queue) manager.Outcome { return q.Send(message("a", manager.ClassEvent, 1)) }
		for range 100 {
			if send(burst) != manager.Queued {
				t.Fatal("a burst was refused")
			}
		}
		bytes := outqueue.New(outqueue.Options{MaxBytes: 40})
		send(bytes)
		send(bytes)
		old := outqueue.New(outqueue.Options{MaxAge: 3 * time.Second})
		send(old)
		sending := outqueue.New(outqueue.Options{MaxAge: 3 * time.Second})
		send(sending)
		if _, ok := sending.TryNext(); !ok {
			t.Error("no message")
		}
		<-time.After(time.Second)
		for _, q := range []*outqueue.Queue{burst, bytes} {
			for range 2 {
				if send(q) != manager.Dropped {
					t.Error("a slow consumer may exceed the limits")
				}
			}
			wantClosed(t, q, manager.SlowConsumer)
		}
		if send(old) != manager.Queued {
			t.Error("a queue within its limits is closed")
		}
		<-time.After(2*time.Second + time.Millisecond)
		for _, q := range []*outqueue.Queue{old, sending} {
			wantClosed(t, q, manager.SlowConsumer)
		}
	})
}

// Limits that are negative do not exist.
func TestQueue_NegativeIsNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := outqueue.New(outqueue.Options{MaxBytes: -1, MaxMessages: -1, MaxAge: -1})
		q.Send(message("a", manager.ClassEvent, 1))
		<-time.After(time.Hour)
		for i := 2; i <= 100_000; i++ {
			if q.Send(message("a", manager.ClassEvent, i)) != manager.Queued {
				t.Fatal("there is a limit")
			}
		}
		q.Abort()
		wantClosed(t, q, manager.NormalClosure)
	})
}

// Close lets Next return the queued messages first; the manager's Drain waits for that.
func TestQueue_FlushesBeforeItCloses(t *testing.T) {
	m, err := manager.New(manager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	q := outqueue.New(outqueue.Options{Variant: manager.VariantV1})
	if err := m.Connect("ann", q); err != nil {
		t.Fatal(err)
	}
	if err := m.SubscribeConn(t.Context(), "ann", q, "a", manager.SubscribeOptions{Acknowledge: true}); err != nil {
		t.Fatal(err)
	}
	e, err := manager.Parse("a", []byte(`{"action":"note"}`), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pos, err := m.Publish(t.Context(), "a", e)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error)
	go func() { closed <- m.Close(context.Background()) }()
	var all []string
	for {
		message, err := q.Next(t.Context())
		if err != nil {
			var reason *outqueue.ClosedError
			if !errors.As(err, &reason) || reason.Reason != manager.ServerReloading {
				t.Errorf("Next: %v", err)
			}
			break
		}
		all = append(all, string(message.AppendJSON(nil)))
		if message.Offset() == pos.Offset && message.Epoch() != pos.Epoch {
			t.Errorf("the epoch is %q, want %q", message.Epoch(), pos.Epoch)
		}
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if len(all) != 2 || !strings.Contains(all[0], `"subscribed"`) || all[1] != `{"action":"note","offset":1,"upload_id":"a"}` {
		t.Errorf("received %q", all)
	}
}

// Next ends with its context, and a base connection gets no acknowledgements.
func TestQueue_NextEndsWithItsContext(t *testing.T) {
	q := outqueue.New(outqueue.Options{})
	if q.Send(frame.NewV1(frame.Event, []byte(`{}`))) != manager.Queued {
		t.Error("an acknowledgement is not ignored")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v", err)
	}
}

// Control messages precede queued data, and are bounded.
func TestQueue_ControlPrecedesData(t *testing.T) {
	q := outqueue.New(outqueue.Options{})
	q.Send(message("a", manager.ClassEvent, 1))
	q.Send(frame.New(frame.Text, frame.Control, []byte(`{"action":"ping"}`)))
	if m, _ := q.TryNext(); m.Class() != manager.ClassControl {
		t.Errorf("%s came first", m.Body())
	}
	for range 64 {
		q.Send(frame.New(frame.Text, frame.Control, []byte(`{"action":"ping"}`)))
	}
	if q.Send(frame.New(frame.Text, frame.Control, nil)) != manager.Dropped {
		t.Error("control messages are not bounded")
	}
}

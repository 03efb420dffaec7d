package manager

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// crowd makes as many users as make an audience large follow an upload, and returns their connections.
func crowd(t testing.TB, m *Manager, uploadID string) []*fakeConn {
	t.Helper()
	conns := make([]*fakeConn, fanOutAlone)
	for i := range conns {
		conns[i] = connect(t, m, inCrowd(uploadID, i))
		must(t, m.SubscribeConn(t.Context(), inCrowd(uploadID, i), conns[i], uploadID, SubscribeOptions{}))
	}
	return conns
}

// inCrowd returns the user with a number in an upload's crowd.
func inCrowd(uploadID string, i int) string { return fmt.Sprint("of ", uploadID, " ", i) }

// pause delays the burst of an upload as if its goroutine had not run yet, until release is called or another caller
// flushes it.
func pause(t testing.TB, m *Manager, uploadID string) (release func()) {
	t.Helper()
	flushAll(m)
	m.registry.With(uploadID, func(u *upload) {
		p := &burst{scheduled: true}
		p.run = m.bursts.flushLater(uploadID, p)
		u.State.burst = p
	})
	return func() { m.registry.With(uploadID, m.bursts.flush) }
}

// flushAll returns when all bursts are flushed.
func flushAll(m *Manager) { m.registry.EachUpload(m.bursts.flush) }

// TestBurst_BlockedFanOutDelaysNoOtherUpload: a Conn that blocks, against its contract, delays its own upload only.
func TestBurst_BlockedFanOutDelaysNoOtherUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{})
		stuck, cat := crowd(t, m, "stuck"), crowd(t, m, "cat")
		begun, released := make(chan struct{}), make(chan struct{})
		release := sync.OnceFunc(func() { close(released) })
		defer release()
		stuck[0].onSend = func(*Frame) Outcome {
			close(begun)
			<-released
			return Queued
		}
		publish(t, m, "stuck", 1)
		<-begun
		last := publish(t, m, "cat", 3)
		synctest.Wait() // every goroutine has done what it can
		for _, c := range cat {
			wantConsecutive(t, c.offsets(), 1, last.Offset)
		}
		release()
		synctest.Wait()
		for _, c := range stuck {
			wantConsecutive(t, c.offsets(), 1, 1)
		}
	})
}

// TestBurst_IsFlushedFirst: the messages of a burst count as sent, so a subsequent operation that concerns a receiver
// flushes them first.
func TestBurst_IsFlushedFirst(t *testing.T) {
	const waiting = 5
	ctx := context.Background()
	for name, do := range map[string]func(m *Manager, user string, c *fakeConn) error{
		"UnsubscribeConn":   func(m *Manager, user string, c *fakeConn) error { m.UnsubscribeConn(user, c, "cat"); return nil },
		"UnsubscribeUpload": func(m *Manager, user string, _ *fakeConn) error { m.UnsubscribeUpload(user, "cat"); return nil },
		"Disconnect":        func(m *Manager, user string, c *fakeConn) error { m.Disconnect(user, c); return nil },
		"Connect":           func(m *Manager, user string, _ *fakeConn) error { return m.Connect(user, &fakeConn{}) },
		"SubscribeUpload":   func(m *Manager, _ string, _ *fakeConn) error { return m.SubscribeUpload(ctx, "late", "cat") },
		"Forget":            func(m *Manager, _ string, _ *fakeConn) error { return m.Forget(ctx, "cat") },
		"DisconnectAll":     func(m *Manager, _ string, _ *fakeConn) error { return m.DisconnectAll(ctx) },
		"replay": func(m *Manager, _ string, _ *fakeConn) error {
			epoch := held(m, "cat", Position{}).Position.Epoch
			replaySource{m}.Read("cat", epoch, 0, func([]*Frame) {})
			return nil
		},
		"SendToUploadSubscribers": func(m *Manager, _ string, _ *fakeConn) error {
			_, err := m.SendToUploadSubscribers("cat", note(t, 1))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, Options{})
			user, c := inCrowd("cat", 0), crowd(t, m, "cat")[0]
			pause(t, m, "cat")
			publish(t, m, "cat", waiting)
			if got := c.offsets(); len(got) > 0 {
				t.Fatalf("%v came before the burst was flushed", got)
			}
			must(t, do(m, user, c))
			got := c.offsets()
			wantConsecutive(t, got[:min(len(got), waiting)], 1, waiting)
		})
	}
}

func TestBurst_NewSubscriberGetsItsMessagesOnce(t *testing.T) {
	m := open(t, Options{})
	crowd(t, m, "cat")
	release := pause(t, m, "cat")
	publish(t, m, "cat", 3)
	c := connect(t, m, "late")
	must(t, m.SubscribeUpload(t.Context(), "late", "cat"))
	last := publish(t, m, "cat", 3)
	release()
	wantConsecutive(t, c.offsets(), 3, last.Offset)
}

// TestBurst_IsBounded: a publisher that is ahead of the burst's goroutine does the work itself.
func TestBurst_IsBounded(t *testing.T) {
	for name, bound := range map[string]struct{ messages, bytes int }{
		"messages": {burstFrames, 1},
		"bytes":    {8, burstBytes / 8},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, Options{MaxMessageBytes: burstBytes})
			c := crowd(t, m, "cat")[0]
			pause(t, m, "cat")
			text := fmt.Sprintf(`{"action":"note","pad":"%s"}`, strings.Repeat("x", bound.bytes))
			e, err := Parse("", []byte(text), time.Time{})
			must(t, err)
			for i := range bound.messages + 1 {
				if got := len(c.offsets()); got > 0 {
					t.Fatalf("%d came after %d were published", got, i)
				}
				_, err := m.Publish(t.Context(), "cat", e)
				must(t, err)
				if len(c.offsets()) > 0 {
					wantConsecutive(t, c.offsets(), 1, uint64(i+1))
					return
				}
			}
			t.Errorf("more than %d messages with %d bytes wait", bound.messages, bound.bytes)
		})
	}
}

// TestInvariant1LargeAudienceGetsEachMessageOnce has several publish while others come and go.
func TestInvariant1LargeAudienceGetsEachMessageOnce(t *testing.T) {
	const publishers, each = 3, 40
	m := open(t, Options{})
	c := crowd(t, m, "cat")[0]
	var work sync.WaitGroup
	for range publishers {
		work.Go(func() { publish(t, m, "cat", each) })
	}
	late := make([]*fakeConn, each)
	work.Go(func() {
		for i := range late {
			late[i] = &fakeConn{}
			user := fmt.Sprint("late ", i)
			if err := m.Connect(user, late[i]); err != nil {
				t.Error(err)
			}
			if err := m.SubscribeUpload(context.Background(), user, "cat"); err != nil {
				t.Error(err)
			}
		}
	})
	work.Wait()
	flushAll(m)
	wantConsecutive(t, c.offsets(), 1, publishers*each)
	for _, c := range late {
		if offsets := c.offsets(); len(offsets) > 0 { // none: it came before the first message
			wantConsecutive(t, offsets, offsets[0], publishers*each)
		} else {
			t.Error("a subscriber got nothing")
		}
	}
}

// TestBurst_ClosingLosesNothing: messages published before Close arrive before the close frame.
func TestBurst_ClosingLosesNothing(t *testing.T) {
	m := open(t, Options{})
	conns := crowd(t, m, "cat")
	pause(t, m, "cat")
	publish(t, m, "cat", 3)
	must(t, m.DisconnectAll(t.Context()))
	for i, c := range conns {
		wantConsecutive(t, c.offsets(), 1, 3)
		if closed := c.closed(); len(closed) != 1 || c.frames[len(c.frames)-1].Offset() != 0 {
			t.Errorf("connection %d was closed %d times, or before its last message", i, len(closed))
		}
	}
}

// TestBurst_AfterCloseMessagesAreSentAtOnce: a broadcast that is under way when the manager is closed is sent at once.
func TestBurst_AfterCloseMessagesAreSentAtOnce(t *testing.T) {
	m := open(t, Options{})
	c := crowd(t, m, "cat")[0]
	m.bursts.close()
	last := publish(t, m, "cat", 3)
	wantConsecutive(t, c.offsets(), 1, last.Offset)
}

// TestUpload_StaysWithinItsBudget asserts the allocator's size class of an upload with its state: one byte more costs the
// next one.
func TestUpload_StaysWithinItsBudget(t *testing.T) {
	if size := unsafe.Sizeof(upload{}); size > 112 {
		t.Errorf("an upload has %d bytes, at most 112 are planned", size)
	}
}

// TestPublish_AllocatesNothingPerReceiver: nor does a burst allocate anything for a message.
func TestPublish_AllocatesNothingPerReceiver(t *testing.T) {
	m := open(t, Options{})
	audience(t, m, 4*fanOutAlone)
	var msg Message = note(t, 1)
	publish(t, m, "cat", 100) // fills the history
	allocations := testing.AllocsPerRun(100, func() {
		if _, err := m.Publish(context.Background(), "cat", msg); err != nil {
			t.Error(err)
		}
	})
	if allocations > 2 {
		t.Errorf("a message takes %v allocations, at most 2 are planned", allocations)
	}
}

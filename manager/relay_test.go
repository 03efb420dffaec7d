package manager

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
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

// busy occupies the relay with another upload until it is released.
func busy(t testing.TB, m *Manager) (release func()) {
	t.Helper()
	c := crowd(t, m, "busy")[0]
	begun, released := make(chan struct{}), make(chan struct{})
	c.onSend = func(*Frame) Outcome {
		close(begun)
		<-released
		return Queued
	}
	publish(t, m, "busy", 1)
	<-begun
	return sync.OnceFunc(func() { close(released) })
}

// TestWhatWaitsForALargeAudienceIsSentFirst: messages in the backlog count as sent, so any subsequent operation on the
// upload flushes them first.
func TestWhatWaitsForALargeAudienceIsSentFirst(t *testing.T) {
	const waiting = 5
	ctx := context.Background()
	for name, do := range map[string]func(m *Manager, user string, c *fakeConn) error{
		"UnsubscribeConn":   func(m *Manager, user string, c *fakeConn) error { m.UnsubscribeConn(user, c, "cat"); return nil },
		"UnsubscribeUpload": func(m *Manager, user string, _ *fakeConn) error { m.UnsubscribeUpload(user, "cat"); return nil },
		"Disconnect":        func(m *Manager, user string, c *fakeConn) error { m.Disconnect(user, c); return nil },
		"Connect":           func(m *Manager, user string, _ *fakeConn) error { return m.Connect(user, &fakeConn{}) },
		"SubscribeUpload":   func(m *Manager, _ string, _ *fakeConn) error { return m.SubscribeUpload(ctx, "late", "cat") },
		"Forget":            func(m *Manager, _ string, _ *fakeConn) error { return m.Forget(ctx, "cat") },
		"History":           func(m *Manager, _ string, _ *fakeConn) error { held(m, "cat", Position{}); return nil },
		"SendToUploadSubscribers": func(m *Manager, _ string, _ *fakeConn) error {
			_, err := m.SendToUploadSubscribers("cat", note(t, 1))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, Options{})
			user, c := inCrowd("cat", 0), crowd(t, m, "cat")[0]
			defer busy(t, m)()
			publish(t, m, "cat", waiting)
			if got := c.offsets(); len(got) > 0 {
				t.Fatalf("%v came though the relay is busy", got)
			}
			must(t, do(m, user, c))
			got := c.offsets()
			wantConsecutive(t, got[:min(len(got), waiting)], 1, waiting)
		})
	}
}

func TestWhoComesWhileMessagesWaitGetsThemOnce(t *testing.T) {
	m := open(t, Options{})
	crowd(t, m, "cat")
	release := busy(t, m)
	defer release()
	publish(t, m, "cat", 3)
	c := connect(t, m, "late")
	must(t, m.SubscribeUpload(t.Context(), "late", "cat"))
	last := publish(t, m, "cat", 3)
	release()
	m.relay.flush()
	wantConsecutive(t, c.offsets(), 3, last.Offset)
}

// TestABacklogIsBounded: a publisher that is ahead of the relay does the work itself.
func TestABacklogIsBounded(t *testing.T) {
	for name, bound := range map[string]struct{ messages, bytes int }{
		"messages": {backlogFrames, 1},
		"bytes":    {8, backlogBytes / 8},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, Options{MaxMessageBytes: backlogBytes})
			c := crowd(t, m, "cat")[0]
			defer busy(t, m)()
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

// TestInvariant1ALargeAudienceGetsEachMessageOnceInOrder has several publish while others come and go.
func TestInvariant1ALargeAudienceGetsEachMessageOnceInOrder(t *testing.T) {
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
	m.relay.flush()
	wantConsecutive(t, c.offsets(), 1, publishers*each)
	for _, c := range late {
		if offsets := c.offsets(); len(offsets) > 0 { // none: it came before the first message
			wantConsecutive(t, offsets, offsets[0], publishers*each)
		} else {
			t.Error("a subscriber got nothing")
		}
	}
}

// TestClosingLosesNothing: messages published before Close arrive before the close frame.
func TestClosingLosesNothing(t *testing.T) {
	m := open(t, Options{})
	conns := crowd(t, m, "cat")
	release := busy(t, m)
	publish(t, m, "cat", 3)
	m.relay.mu.Lock()
	m.relay.list = nil // the relay will not turn to it
	m.relay.mu.Unlock()
	release()
	must(t, m.DisconnectAll(t.Context()))
	for i, c := range conns {
		wantConsecutive(t, c.offsets(), 1, 3)
		if closed := c.closed(); len(closed) != 1 || c.frames[len(c.frames)-1].Offset() != 0 {
			t.Errorf("connection %d was closed %d times, or before its last message", i, len(closed))
		}
	}
}

// TestPublishingAfterTheRelayHasEnded: a broadcast that is under way when the manager is closed is sent at once.
func TestPublishingAfterTheRelayHasEnded(t *testing.T) {
	m := open(t, Options{})
	c := crowd(t, m, "cat")[0]
	m.relay.close()
	last := publish(t, m, "cat", 3)
	wantConsecutive(t, c.offsets(), 1, last.Offset)
}

// TestPublishingToManyAllocatesNothingPerReceiver: nor does the relay allocate anything for a message.
func TestPublishingToManyAllocatesNothingPerReceiver(t *testing.T) {
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

package manager

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Each test of this file demonstrates one difference from the system that this one replaces.

// There, a connection that came or went during a send ended it for the rest.
func TestPublish_ReachesAllWhileConnectionsComeAndGo(t *testing.T) {
	for name, send := range map[string]func(*Manager, Message) (Delivery, error){
		"to subscribers": func(m *Manager, msg Message) (Delivery, error) { return m.SendToUploadSubscribers("cat", msg) },
		"to a user":      func(m *Manager, msg Message) (Delivery, error) { return m.SendToUser(t.Context(), "ann", msg) },
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, Options{MaxConnectionsPerUser: -1})
			must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
			var (
				conns   []*fakeConn
				passing sync.WaitGroup
			)
			// The first to be sent something makes all the others go, and others come.
			var once sync.Once
			comeAndGo := func(*Frame) Outcome {
				once.Do(func() {
					for _, c := range conns {
						passing.Go(func() { m.Disconnect("ann", c) })
						passing.Go(func() { _ = m.Connect("ann", &fakeConn{}) })
					}
				})
				return Queued
			}
			for range 20 {
				c := &fakeConn{onSend: comeAndGo}
				conns = append(conns, c)
				must(t, m.Connect("ann", c))
			}
			d, err := send(m, note(t, 1))
			passing.Wait()
			if err != nil || d.Queued < len(conns) {
				t.Errorf("the delivery is %+v, %v, want all of %d", d, err, len(conns))
			}
			for i, c := range conns {
				if n := len(c.received(t)); n != 1 {
					t.Errorf("connection %d received %d messages, want 1", i, n)
				}
			}
		})
	}
}

// There, each connection was awaited before the next one got the message.
func TestPublish_WaitsForNoSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{})
		begin := time.Now()
		for i := range 10 {
			user, c := fmt.Sprint("user ", i), &fakeConn{}
			c.onSend = func(*Frame) Outcome { return Dropped } // its queue is full
			must(t, m.Connect(user, c))
			must(t, m.SubscribeUpload(t.Context(), user, "cat"))
		}
		quick := connect(t, m, "quick")
		must(t, m.SubscribeUpload(t.Context(), "quick", "cat"))
		publish(t, m, "cat", 100)
		wantConsecutive(t, quick.offsets(), 1, 100)
		if took := time.Since(begin); took != 0 {
			t.Errorf("publishing took %v", took)
		}
	})
}

// encodings is a message that counts how often it is encoded.
type encodings struct {
	Message
	count int
}

func (e *encodings) encode(v *vocabulary, uploadID string, now time.Time) (Encoded, error) {
	e.count++
	return e.Message.encode(v, uploadID, now)
}

// There, the message was serialised for each connection.
func TestPublish_EncodesOncePerBroadcast(t *testing.T) {
	m := open(t, Options{})
	var conns []*fakeConn
	for i := range 50 {
		user := fmt.Sprint("user ", i%25)
		conns = append(conns, connect(t, m, user))
		must(t, m.SubscribeUpload(t.Context(), user, "cat"))
	}
	msg := &encodings{Message: UploadProgress{Status: StatusPending, Stage: StageQueued}}
	_, err := m.Publish(t.Context(), "cat", msg)
	must(t, err)
	late := connect(t, m, "late")
	must(t, m.SubscribeUpload(t.Context(), "late", "cat"))
	if msg.count != 1 {
		t.Errorf("it was encoded %d times", msg.count)
	}
	for _, c := range append(conns, late) {
		if len(c.frames) != 1 || c.frames[0] != conns[0].frames[0] {
			t.Fatalf("a connection has %d frames, not the one that all share", len(c.frames))
		}
	}
	_, err = m.SendToUser(t.Context(), "user 1", &encodings{Message: msg.Message})
	if err == nil {
		t.Error("progress of no upload was sent")
	}
}

// TestSubscribeUpload_PendingExpires: in the replaced system, a subscription without a connection was never removed.
func TestSubscribeUpload_PendingExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{PendingTTL: time.Minute, MaxPending: 2})
		must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
		must(t, m.SubscribeUpload(t.Context(), "bob", "cat"))
		if err := m.SubscribeUpload(t.Context(), "cem", "cat"); err == nil {
			t.Error("one user too many waits for a connection")
		}
		<-time.After(59 * time.Second)
		if got := m.Stats(); got.Pending != 2 || got.Subscriptions != 2 {
			t.Errorf("before they expire there are %+v", got)
		}
		c := connect(t, m, "ann")
		<-time.After(time.Minute / 4)
		if got, want := m.UploadSubscriberIDs("cat"), []string{"ann"}; !slices.Equal(got, want) || m.Stats().Pending != 0 {
			t.Errorf("subscribers are %q, want %q; %+v", got, want, m.Stats())
		}
		must(t, m.SubscribeUpload(t.Context(), "cem", "cat"))
		<-time.After(time.Hour)
		publish(t, m, "cat", 1)
		wantConsecutive(t, c.offsets(), 1, 1)
	})
}

// There, disconnecting a connection of a user who had none cleared the user's subscriptions.
func TestDisconnect_StrangerChangesNothing(t *testing.T) {
	m := open(t, Options{})
	must(t, m.SubscribeUpload(t.Context(), "waiting", "cat"))
	c := connect(t, m, "ann")
	must(t, m.SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{}))
	before := m.Stats()
	for _, user := range []string{"waiting", "ann", "unheard of"} {
		m.Disconnect(user, &fakeConn{})
		m.Disconnect(user, nil)
		m.UnsubscribeConn(user, &fakeConn{}, "cat")
		m.UnsubscribeConn(user, nil, "cat")
	}
	m.Disconnect("waiting", c)
	if got := m.Stats(); got != before {
		t.Errorf("there are %+v, before there were %+v", got, before)
	}
	if got, want := m.UploadSubscriberIDs("cat"), []string{"ann", "waiting"}; !slices.Equal(got, want) {
		t.Errorf("subscribers are %q, want %q", got, want)
	}
	m.Disconnect("ann", c)
	m.Disconnect("ann", c)
	if got := m.Stats(); got.Connections != 0 || got.Subscriptions != 1 {
		t.Errorf("after disconnecting twice there are %+v", got)
	}
}

// There, one tab's unsubscribe silenced the user's other tabs.
func TestUnsubscribeConn_OtherTabGoesOn(t *testing.T) {
	m := open(t, Options{})
	first, second := connect(t, m, "ann"), connect(t, m, "ann")
	for _, c := range []*fakeConn{first, second} {
		must(t, m.SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{}))
	}
	publish(t, m, "cat", 1)
	m.UnsubscribeConn("ann", first, "cat")
	publish(t, m, "cat", 1)
	m.Disconnect("ann", first)
	publish(t, m, "cat", 1)
	wantConsecutive(t, second.offsets(), 1, 3)
	m.UnsubscribeConn("ann", second, "cat")
	if got := m.UploadSubscriberIDs("cat"); len(got) != 0 {
		t.Errorf("after the last claim there are the subscribers %q", got)
	}
}

// There, who came late saw nothing until the next message, and nothing at all if that was the last.
func TestSubscribeUpload_LateSubscriberGetsTheNewest(t *testing.T) {
	m := open(t, Options{})
	publish(t, m, "cat", 9)
	_, err := m.Publish(t.Context(), "cat", UploadCompleted{Description: "A cat", AuditScore: 90})
	must(t, err)
	c := connect(t, m, "ann")
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	if got := c.received(t); len(got) != 1 || got[0].Action != "upload_completed" {
		t.Errorf("the first tab gets %+v", got)
	}
	tab := connect(t, m, "ann")
	wantConsecutive(t, tab.offsets(), 10, 10)
}

// TestSubscribeConn_ReturningClientGetsMissedMessages: in the replaced system, a client lost the messages sent during a disconnection.
func TestSubscribeConn_ReturningClientGetsMissedMessages(t *testing.T) {
	m := open(t, Options{})
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	before := connect(t, m, "ann")
	seen := publish(t, m, "cat", 3)
	m.Disconnect("ann", before)
	publish(t, m, "cat", 4)
	after := connect(t, m, "ann")
	refused, err := m.Resume(context.Background(), "ann", after, map[string]Position{"cat": seen})
	if err != nil || len(refused) != 0 {
		t.Fatalf("refused: %v, %v", refused, err)
	}
	publish(t, m, "cat", 2)
	wantConsecutive(t, after.offsets(), seen.Offset+1, 9)
}

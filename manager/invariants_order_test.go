package manager

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/shoal-go/shoal/internal/frame"
)

// TestInvariant1EachMessageReachesEachConnectionOnceInOrder publishes from several goroutines while others come
// and go.
func TestInvariant1EachMessageReachesEachConnectionOnceInOrder(t *testing.T) {
	const publishers, each = 4, 250
	m := open(t, Options{})
	conns := []*fakeConn{connect(t, m, "ann"), connect(t, m, "ann"), connect(t, m, "bob")}
	for _, c := range conns {
		c.onSend = func(*Frame) Outcome {
			runtime.Gosched() // another publisher may try to come in between
			return Queued
		}
	}
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	must(t, m.SubscribeUpload(t.Context(), "bob", "cat"))
	var work sync.WaitGroup
	for range publishers {
		work.Go(func() { publish(t, m, "cat", each) })
	}
	work.Go(func() {
		for i := range each {
			c, user := &fakeConn{}, fmt.Sprint("passer-by ", i%3)
			if err := m.Connect(user, c); err != nil {
				t.Error(err)
			}
			if err := m.SubscribeUpload(context.Background(), user, "cat"); err != nil {
				t.Error(err)
			}
			m.Disconnect(user, c)
		}
	})
	work.Wait()
	for _, c := range conns {
		wantConsecutive(t, c.offsets(), 1, publishers*each)
	}
}

// TestInvariant1LossIsAnnounced: a message that a connection cannot accept is counted, and the other connections
// receive it.
func TestInvariant1LossIsAnnounced(t *testing.T) {
	m := open(t, Options{})
	for i, outcome := range []Outcome{Dropped, Queued, Conflated} {
		user := fmt.Sprint("user ", i)
		must(t, m.Connect(user, &fakeConn{onSend: func(*Frame) Outcome { return outcome }}))
		must(t, m.SubscribeUpload(t.Context(), user, "cat"))
	}
	d, err := m.SendToUploadSubscribers("cat", note(t, 1))
	if want := (Delivery{Queued: 1, Conflated: 1, Dropped: 1}); err != nil || d != want {
		t.Errorf("the delivery is %+v, %v, want %+v", d, err, want)
	}
}

// TestInvariant2SnapshotThenAllThatFollows lets a subscriber arrive, in each possible way, while others publish.
func TestInvariant2SnapshotThenAllThatFollows(t *testing.T) {
	const before = 3
	for _, way := range []struct {
		name string
		// arrive makes the connection follow; since is where the upload stood before.
		arrive func(m *Manager, c *fakeConn, upload string, since Position) error
		// recovers: the stream begins right after since.
		recovers bool
	}{
		{"SubscribeUpload", func(m *Manager, c *fakeConn, upload string, _ Position) error {
			if err := m.Connect("ann", c); err != nil {
				return err
			}
			return m.SubscribeUpload(context.Background(), "ann", upload)
		}, false},
		{"Connect", func(m *Manager, c *fakeConn, upload string, _ Position) error {
			if err := m.SubscribeUpload(context.Background(), "ann", upload); err != nil {
				return err
			}
			return m.Connect("ann", c)
		}, false},
		{"SubscribeConn", func(m *Manager, c *fakeConn, upload string, _ Position) error {
			if err := m.Connect("ann", c); err != nil {
				return err
			}
			return m.SubscribeConn(context.Background(), "ann", c, upload, SubscribeOptions{})
		}, false},
		{"SubscribeConn since", func(m *Manager, c *fakeConn, upload string, since Position) error {
			if err := m.Connect("ann", c); err != nil {
				return err
			}
			return m.SubscribeConn(context.Background(), "ann", c, upload, SubscribeOptions{Since: &since, Acknowledge: true})
		}, true},
		{"Resume", func(m *Manager, c *fakeConn, upload string, since Position) error {
			if err := m.Connect("ann", c); err != nil {
				return err
			}
			_, err := m.Resume(context.Background(), "ann", c, map[string]Position{upload: since})
			return err
		}, true},
	} {
		t.Run(way.name, func(t *testing.T) {
			m := open(t, Options{HistoryMessages: 1000})
			for round := range 150 {
				upload, c := fmt.Sprint("upload ", round), &fakeConn{}
				since := publish(t, m, upload, before)
				last := race(t, m, upload, func() {
					if err := way.arrive(m, c, upload, since); err != nil {
						t.Error(err)
					}
				})
				offsets := c.offsets()
				if len(offsets) == 0 || way.recovers && offsets[0] != before+1 || offsets[0] < before {
					t.Fatalf("the stream begins with %v after %d", offsets[:min(1, len(offsets))], before)
				}
				wantConsecutive(t, offsets, offsets[0], last)
				m.Disconnect("ann", c)
			}
		})
	}
}

// race has two goroutines publish while the subscriber arrives, and returns the offset of a last message.
func race(t *testing.T, m *Manager, upload string, arrive func()) uint64 {
	t.Helper()
	var work sync.WaitGroup
	begin := make(chan struct{})
	for range 2 {
		work.Go(func() {
			<-begin
			publish(t, m, upload, 15)
		})
	}
	work.Go(func() {
		<-begin
		arrive()
	})
	close(begin)
	work.Wait()
	return publish(t, m, upload, 1).Offset
}

// TestInvariant6TerminalMessagesKeepTheirPlace covers the manager's part: the class that restricts an outbox, and the
// order. The tests of the outbox verify that it observes the class.
func TestInvariant6TerminalMessagesKeepTheirPlace(t *testing.T) {
	m := open(t, Options{})
	c := connect(t, m, "ann")
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	state := UploadProgress{Status: StatusAnalyzing, Stage: StageIndexing, Percent: 50}
	var work sync.WaitGroup
	ends := []Message{UploadCompleted{Description: "A cat"}, UploadFailed{ErrorMessage: "no cat"}}
	for _, end := range ends {
		work.Go(func() {
			for range 50 {
				for _, msg := range []Message{state, state, end} {
					if _, err := m.Publish(context.Background(), "cat", msg); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	work.Wait()
	wantConsecutive(t, c.offsets(), 1, 300)
	for i, r := range c.received(t) {
		want := frame.Terminal
		if r.Action == "upload_progress" {
			want = frame.State
		}
		if got := c.frames[i].Class(); got != want {
			t.Errorf("%s has class %d, want %d", r.Action, got, want)
		}
	}
	late := connect(t, m, "bob")
	must(t, m.SubscribeUpload(t.Context(), "bob", "cat"))
	if got := late.received(t); len(got) != 1 || got[0].Offset != 300 || got[0].Action == "upload_progress" {
		t.Errorf("who comes late gets %+v, want the terminal message", got)
	}
}

package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// everything does all there is to do with a user and an upload, on a connection of its own.
func everything(t *testing.T, m *Manager, user, upload string) {
	t.Helper()
	ctx, c := context.Background(), &fakeConn{}
	for _, do := range []func() error{
		func() error { return m.Connect(user, c) },
		func() error { return m.SubscribeUpload(ctx, user, upload) },
		func() error { return m.SubscribeConn(ctx, user, c, upload, SubscribeOptions{Acknowledge: true}) },
		func() error { _, err := m.Resume(ctx, user, c, map[string]Position{upload: {}}); return err },
		func() error { _, err := m.Publish(ctx, upload, note(t, 1)); return err },
		func() error { _, err := m.SendToUser(t.Context(), user, note(t, 2)); return err },
		func() error { return m.Forget(ctx, upload) },
	} {
		if err := do(); err != nil {
			t.Error(err)
		}
	}
	newest(m, upload)
	held(m, upload, Position{})
	m.UploadSubscriberIDs(upload)
	m.Stats()
	m.UnsubscribeConn(user, c, upload)
	m.UnsubscribeUpload(user, upload)
	m.Disconnect(user, c)
}

// TestInvariant4SendingHoldsUpNoOtherUserOrUpload: while a message is being sent, which its upload and user have
// to wait for, everything can be done with all others. There is a single shard, so a shard's lock would show.
func TestInvariant4SendingHoldsUpNoOtherUserOrUpload(t *testing.T) {
	m := open(t, Options{Shards: 1})
	sends := 0
	c := &fakeConn{onSend: func(*Frame) Outcome {
		sends++
		inTime("working with another user and upload", func() { everything(t, m, "bob", "dog") })
		return Queued
	}}
	publish(t, m, "cat", 1)
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	for want, send := range []func() error{
		func() error { return m.Connect("ann", c) }, // which sends the newest message
		func() error { publish(t, m, "cat", 1); return nil },
		func() error { _, err := m.SendToUser(t.Context(), "ann", note(t, 1)); return err },
		func() error {
			return m.SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{Acknowledge: true})
		},
		func() error { return m.Forget(t.Context(), "cat") },
	} {
		must(t, send())
		if sends != want+1 {
			t.Fatalf("there were %d sends, want %d", sends, want+1)
		}
	}
}

// TestInvariant4ClosingHoldsNoLock: a Close may wait for any operation on the same user and upload.
func TestInvariant4ClosingHoldsNoLock(t *testing.T) {
	m := open(t, Options{Shards: 1, MaxConnectionsPerUser: 3})
	closings := 0
	newConn := func() *fakeConn {
		c := &fakeConn{}
		c.onClose = func(CloseReason) {
			closings++
			inTime("working with the same user and upload", func() {
				publish(t, m, "cat", 1)
				if _, err := m.SendToUser(t.Context(), "ann", note(t, 1)); err != nil {
					t.Error(err)
				}
				if err := m.SubscribeUpload(context.Background(), "ann", "cat"); err != nil {
					t.Error(err)
				}
				m.Disconnect("ann", c)
			})
		}
		return c
	}
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	for range 5 { // the last two each make a silent one go
		must(t, m.Connect("ann", silentConn{newConn()}))
	}
	if closings != 2 {
		t.Fatalf("%d connections gave way, want 2", closings)
	}
	if n, err := m.DisconnectUser(t.Context(), "ann", NormalClosure); err != nil || n != 3 || closings != 2+3 {
		t.Errorf("%d connections were closed, %d asked to", n, closings-2)
	}
	must(t, m.Connect("ann", silentConn{newConn()}))
	must(t, m.DisconnectAll(t.Context()))
	if closings != 2+3+1 {
		t.Error("DisconnectAll closed nothing")
	}
}

// silentConn is a connection whose client has been silent for an hour.
type silentConn struct{ *fakeConn }

func (silentConn) SilentFor() time.Duration { return time.Hour }

// stuck is a connection whose client does not read: it never ends by itself.
type stuck struct {
	fakeConn
	done    chan struct{}
	aborted int
	// deaf: not even Abort ends it.
	deaf bool
}

func newStuck(deaf bool) *stuck { return &stuck{done: make(chan struct{}), deaf: deaf} }

func (c *stuck) Done() <-chan struct{} { return c.done }

func (c *stuck) Abort() {
	c.aborted++
	if !c.deaf && c.aborted == 1 {
		close(c.done)
	}
}

// TestInvariant5PublishingWaitsForNoClient shows the part that is the manager's: no time passes while it
// publishes to clients that take nothing, not even while it waits for others to go. That a stalled socket costs
// the others nothing is shown where the sockets are.
func TestInvariant5PublishingWaitsForNoClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{})
		must(t, m.Connect("leaving", newStuck(false)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		drained := make(chan error)
		begin := time.Now()
		go func() { drained <- m.DisconnectAll(ctx) }()
		synctest.Wait() // for the drain to wait for the one that is leaving
		slow := newStuck(false)
		slow.onSend = func(*Frame) Outcome { return Dropped }
		must(t, m.Connect("slow", slow))
		must(t, m.SubscribeUpload(t.Context(), "slow", "cat"))
		c := connect(t, m, "ann")
		must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
		publish(t, m, "cat", 1000)
		if d, err := m.SendToUser(t.Context(), "slow", note(t, 1)); err != nil || d.Dropped != 1 {
			t.Errorf("the delivery is %+v, %v", d, err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("publishing took %v", took)
		}
		wantConsecutive(t, c.offsets(), 1, 1000)
		m.Disconnect("slow", slow)
		if err := <-drained; err == nil {
			t.Error("the drain did not wait for the connection that did not end")
		}
	})
}

// publishingHandler is a log whose handler publishes each record to an upload.
type publishingHandler struct {
	slog.Handler
	publish func(message string)
}

func (h publishingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h publishingHandler) Handle(_ context.Context, r slog.Record) error {
	h.publish(r.Message)
	return nil
}

// Invariant 4: no lock is held while something is logged, so the handler of the log may publish to the upload of a
// connection that panics, and at the bound of the histories.
func TestInvariant4_LogMayPublish(t *testing.T) {
	for _, want := range []string{"panic in a connection", "histories evicted"} {
		t.Run(want, func(t *testing.T) {
			var m *Manager
			logged := make(chan string, 1)
			m = open(t, Options{HistoryTotalBytes: 20_000, Logger: slog.New(publishingHandler{publish: func(message string) {
				for i := range 40 { // more than an eviction makes room for
					_, err := m.Publish(context.Background(), fmt.Sprint("eel ", i), note(t, 1))
					if err == nil {
						_, err = m.Publish(context.Background(), "cat", note(t, 1))
					}
					if err != nil && !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
				}
				select {
				case logged <- message:
				default:
				}
			}})})
			if want == "panic in a connection" {
				must(t, m.Connect("ann", &fakeConn{onSend: func(*Frame) Outcome { panic("a fault of the connection") }}))
				must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
			}
			inTime("publishing", func() {
				for i := range 100 {
					publish(t, m, fmt.Sprint("dog ", i), 1)
					publish(t, m, "cat", 1)
				}
				if got := <-logged; want == "histories evicted" && got != want {
					t.Errorf("logged was %q", got)
				}
			})
		})
	}
}

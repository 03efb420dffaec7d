package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestInvariant7EndsWithinItsDeadline closes managers whose connections never end. That no goroutine is left
// shows in the bubble's end, which waits for all of them.
func TestInvariant7EndsWithinItsDeadline(t *testing.T) {
	const patience = 10 * time.Second
	for name, end := range map[string]func(*Manager, context.Context) error{
		"DisconnectAll": (*Manager).DisconnectAll,
		"Close":         (*Manager).Close,
		"Drain": func(m *Manager, ctx context.Context) error {
			return m.Drain(ctx, time.Hour)
		},
	} {
		for _, deaf := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, deaf to Abort: %v", name, deaf), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m, err := New(Options{})
					must(t, err)
					conns := make([]*stuck, 3)
					for i := range conns {
						conns[i] = newStuck(deaf)
						must(t, m.Connect("ann", conns[i]))
					}
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					begin := time.Now()
					if err := end(m, ctx); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("the error is %v", err)
					}
					if took := time.Since(begin); took > patience || !deaf && took == patience {
						t.Errorf("it took %v of %v", took, patience)
					}
					for _, c := range conns {
						if c.aborted != 1 || len(c.closed()) != 1 || c.closed()[0] != ServerReloading {
							t.Errorf("aborted %d times, closed with %v", c.aborted, c.closed())
						}
					}
					if got := m.Stats(); got.Connections != 0 {
						t.Errorf("%d connections are left", got.Connections)
					}
					must(t, m.Close(t.Context()))
				})
			})
		}
	}
}

// TestInvariant7LooksNoFurtherThanItsContext: DisconnectAll returns once its context is cancelled, before or during the
// call.
func TestInvariant7LooksNoFurtherThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		must(t, m.Connect("ann", newStuck(true)))
		if err := m.DisconnectAll(ended); err == nil {
			t.Error("a connection that is still there is no error")
		}
		must(t, m.Connect("ann", newStuck(true)))
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() { result <- m.DisconnectAll(ctx) }()
		<-time.After(time.Hour)
		synctest.Wait()
		select {
		case err := <-result:
			t.Errorf("without a deadline it gave up: %v", err)
		default:
		}
		cancel()
		if err := <-result; err == nil {
			t.Error("a connection that is still there is no error")
		}
	})
}

// TestInvariant8ConnectionsAndSubscriptionsAreBounded goes beyond each bound on users.
func TestInvariant8ConnectionsAndSubscriptionsAreBounded(t *testing.T) {
	m := open(t, Options{MaxConnectionsPerUser: 3, MaxSubscriptionsPerUser: 4, MaxPending: 5})
	ctx := t.Context()
	var conns []*fakeConn
	for i := range 10 {
		c := &fakeConn{}
		wantRefused(t, ErrTooManyConnections, i >= 3, m.Connect("ann", c))
		conns = append(conns, c)
	}
	for i, c := range conns {
		if len(c.closed()) > 0 {
			t.Errorf("connection %d is closed with %v", i, c.closed())
		}
	}
	newest := conns[2]
	for i := range 10 {
		upload := fmt.Sprint("upload ", i)
		wantRefused(t, ErrTooManySubscriptions, i >= 4, m.SubscribeUpload(ctx, "ann", upload))
		wantRefused(t, ErrTooManySubscriptions, i >= 4, m.SubscribeConn(ctx, "ann", newest, upload, SubscribeOptions{}))
		refused, err := m.Resume(ctx, "ann", newest, map[string]Position{upload: {}})
		must(t, err)
		wantRefused(t, ErrTooManySubscriptions, i >= 4, refused[upload])
		wantRefused(t, ErrTooManyPending, i >= 5, m.SubscribeUpload(ctx, fmt.Sprint("waiting ", i), "cat"))
	}
	if got := m.Stats(); got.Connections != 3 || got.Subscriptions != 4+5 || got.Pending != 5 || got.Users != 1+5 {
		t.Errorf("there are %+v", got)
	}
}

func wantRefused(t *testing.T, reason error, refused bool, got error) {
	t.Helper()
	want := reason
	if !refused {
		want = nil
	}
	if !errors.Is(got, want) {
		t.Errorf("the error is %v, want %v", got, want)
	}
}

// TestInvariant8HistoryIsBounded exceeds each bound on the stored data of an upload.
func TestInvariant8HistoryIsBounded(t *testing.T) {
	const size = 10_000
	large, err := Parse("", []byte(`{"action":"x","text":"`+strings.Repeat("y", size)+`"}`), time.Now())
	must(t, err)
	for _, test := range []struct {
		name    string
		options Options
		want    int
	}{
		{"number", Options{HistoryMessages: 7}, 7},
		{"number by default", Options{}, 64},
		{"bytes", Options{HistoryBytes: 5 * size}, 4},
		{"bytes, the newest is held in any case", Options{HistoryBytes: 1}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := open(t, test.options)
			for range 100 {
				_, err := m.Publish(t.Context(), "cat", large)
				must(t, err)
			}
			h := held(m, "cat", Position{})
			if len(h.Messages) != test.want || h.Complete || h.Messages[test.want-1].Offset != 100 {
				t.Errorf("%d messages are held, want %d", len(h.Messages), test.want)
			}
		})
	}
}

// TestInvariant8NothingIsRememberedForever lets all data of unfollowed uploads expire.
func TestInvariant8NothingIsRememberedForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{HistoryTTL: 10 * time.Minute, PendingTTL: time.Minute})
		c := connect(t, m, "ann")
		for i := range 100 {
			publish(t, m, fmt.Sprint("published ", i), 2)
			upload := fmt.Sprint("asked for ", i)
			must(t, m.SubscribeConn(t.Context(), "ann", c, upload, SubscribeOptions{Acknowledge: true}))
			m.UnsubscribeConn("ann", c, upload)
		}
		if got := m.Stats().Uploads; got != 200 {
			t.Fatalf("%d uploads are known, want 200", got)
		}
		<-time.After(time.Minute + 8*time.Second)
		if got := m.Stats().Uploads; got != 100 {
			t.Errorf("%d uploads are known a minute later, want the 100 that have messages", got)
		}
		<-time.After(9 * time.Minute)
		if got := m.Stats().Uploads; got != 0 {
			t.Errorf("%d uploads are known after all has expired", got)
		}
	})
}

func TestPublish_MessagesAreBounded(t *testing.T) {
	m := open(t, Options{MaxMessageBytes: 2000})
	for _, send := range []func(Message) error{
		func(msg Message) error { _, err := m.Publish(t.Context(), "cat", msg); return err },
		func(msg Message) error { _, err := m.SendToUploadSubscribers("cat", msg); return err },
		func(msg Message) error { _, err := m.SendToUser(t.Context(), "ann", msg); return err },
	} {
		var invalid *InvalidError
		if err := send(UploadFailed{UploadID: "cat", ErrorMessage: strings.Repeat("x", 2000)}); !errors.As(err, &invalid) {
			t.Errorf("a message that is too large: %v", err)
		}
		must(t, send(UploadFailed{UploadID: "cat", ErrorMessage: strings.Repeat("x", 1500)}))
	}
	if got := m.Stats().Published; got != 2 {
		t.Errorf("%d messages were published, want 2", got)
	}
}

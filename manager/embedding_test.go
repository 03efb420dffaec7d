package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/testlog"
)

// uncomparable is a connection that cannot be a key of the registry.
type uncomparable struct{ _ []*Frame }

func (uncomparable) Send(*Frame) Outcome { return Queued }

func (uncomparable) Close(CloseReason) {}

// Connections that cannot be told apart, or are nil, are refused where they are registered, rather than with a panic
// later.
func TestConnect_RefusesUncomparableConnections(t *testing.T) {
	m := open(t, Options{})
	for _, c := range []Conn{uncomparable{}, nil, (*fakeConn)(nil)} {
		var invalid *InvalidError
		if err := m.Connect("ann", c); !errors.As(err, &invalid) || invalid.Field != "connection" {
			t.Errorf("%T: %v, want an *InvalidError", c, err)
		}
		m.Disconnect("ann", c)
	}
}

// Close codes that may not stand in a frame are refused, and the zero value is a normal closure.
func TestCloseReason_IsChecked(t *testing.T) {
	m := open(t, Options{})
	for _, code := range []uint16{1, 99, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535} {
		c := connect(t, m, "ann")
		var invalid *InvalidError
		if n, err := m.DisconnectUser(t.Context(), "ann", CloseReason{Code: code}); n != 0 || !errors.As(err, &invalid) {
			t.Errorf("code %d: %d closed, %v", code, n, err)
		}
		if _, err := m.DisconnectToken(t.Context(), "t", CloseReason{Code: code}); !errors.As(err, &invalid) {
			t.Errorf("code %d: %v", code, err)
		}
		m.Disconnect("ann", c)
	}
	for _, code := range []uint16{0, 1000, 1003, 1007, 1014, 3000, 4999} {
		c := connect(t, m, "ann")
		want := code
		if code == 0 {
			want = 1000
		}
		_, err := m.DisconnectUser(t.Context(), "ann", CloseReason{Code: code})
		if closed := c.closed(); err != nil || len(closed) != 1 || closed[0].Code != want {
			t.Errorf("code %d: closed with %v, %v", code, closed, err)
		}
	}
}

// Every method that takes an id checks it before the registry or the broker sees it.
func TestManager_ChecksIDsEverywhere(t *testing.T) {
	m := open(t, Options{})
	c := connect(t, m, "ann")
	ctx := t.Context()
	for _, id := range []string{"", "\x00", "\xff", "\ufffd", strings.Repeat("a", 5000)} {
		for name, err := range map[string]error{
			"Connect":                 m.Connect(id, c),
			"SubscribeUpload user":    m.SubscribeUpload(ctx, id, "cat"),
			"SubscribeUpload":         m.SubscribeUpload(ctx, "ann", id),
			"SubscribeConn":           m.SubscribeConn(ctx, "ann", c, id, SubscribeOptions{}),
			"Forget":                  m.Forget(ctx, id),
			"Publish":                 second(m.Publish(ctx, id, note(t, 1))),
			"SendToUploadSubscribers": second(m.SendToUploadSubscribers(id, note(t, 1))),
			"SendToUser":              second(m.SendToUser(t.Context(), id, note(t, 1))),
			"History":                 second(m.History(ctx, id, Position{})),
			"DisconnectUser":          second(m.DisconnectUser(ctx, id, NormalClosure)),
			"Subscribers":             second(m.Subscribers(ctx, id)),
		} {
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Errorf("%s(%.10q): %v, want an *InvalidError", name, id, err)
			}
		}
		if _, _, err := m.Newest(ctx, id); err == nil || errors.Is(err, ErrUnknownUpload) {
			t.Errorf("Newest(%.10q): %v, want an *InvalidError", id, err)
		}
		if ids := m.UploadSubscriberIDs(id); len(ids) > 0 {
			t.Errorf("%.10q has subscribers", id)
		}
	}
}

// The zero value of a Manager, and a nil one, answer with an error that says how to make one.
func TestManager_ZeroValueReturnsErrors(t *testing.T) {
	for _, m := range []*Manager{nil, {}} {
		wantNotMade(t, m)
	}
	for _, r := range []*Reporter{nil, {}} {
		_, _ = r.Writer(10).Write([]byte("0123456789"))
		for name, err := range map[string]error{
			"Stage": r.Stage(StatusPending, StageQueued, 1, ""), "Bytes": r.Bytes(1, 2), "Complete": r.Complete("", 1), "Fail": r.Fail(""),
		} {
			if !errors.Is(err, errReporterNotMade) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// Nil messages of all types are refused.
func TestPublish_NilIsRefused(t *testing.T) {
	m := open(t, Options{})
	for _, msg := range []Message{nil, (*UploadProgress)(nil), (*UploadCompleted)(nil), (*UploadFailed)(nil), (*Encoded)(nil)} {
		var invalid *InvalidError
		if _, err := m.Publish(t.Context(), "cat", msg); !errors.As(err, &invalid) {
			t.Errorf("Publish of a %T: %v", msg, err)
		}
		if _, err := m.SendToUser(t.Context(), "ann", msg); !errors.As(err, &invalid) {
			t.Errorf("SendToUser of a %T: %v", msg, err)
		}
	}
	if _, err := m.Publish(t.Context(), "cat", &UploadFailed{ErrorMessage: "no"}); err != nil {
		t.Errorf("Publish of a pointer: %v", err)
	}
}

func wantNotMade(t *testing.T, m *Manager) {
	t.Helper()
	registered := &fakeConn{}
	must(t, open(t, Options{}).Connect("ann", registered))
	c, ctx := &fakeConn{}, t.Context()
	for name, err := range map[string]error{
		"Connect":         m.Connect("ann", c),
		"SubscribeUpload": m.SubscribeUpload(ctx, "ann", "cat"),
		"SubscribeConn":   m.SubscribeConn(ctx, "ann", c, "cat", SubscribeOptions{}),
		"Publish":         second(m.Publish(ctx, "cat", note(t, 1))),
		"SendToUser":      second(m.SendToUser(t.Context(), "ann", note(t, 1))),
		"History":         second(m.History(ctx, "cat", Position{})),
		"Forget":          m.Forget(ctx, "cat"),
		"DisconnectUser":  second(m.DisconnectUser(ctx, "ann", NormalClosure)),
		"DisconnectAll":   m.DisconnectAll(ctx),
		"Close":           m.Close(ctx),
		"WaitReady":       m.WaitReady(ctx),
		"Ready":           m.Ready(),
		"NodeStats":       third(m.NodeStats(ctx)),
		"Admissible":      second(m.Admissible("ann", c, "cat")),
		"Parse":           second(m.Parse("cat", []byte(`{"action":"note"}`), time.Time{})),
		"PublishOnce":     third(m.PublishOnce(ctx, "cat", note(t, 1), Once{Key: "key"})),
		"CheckOnce":       m.CheckOnce(ctx, "cat", Once{Key: "key"}),
		"Resume":          second(m.Resume(ctx, "ann", c, nil)),
		"Newest":          third(m.Newest(ctx, "cat")),
		"Subscribers":     second(m.Subscribers(ctx, "cat")),
		"DisconnectToken": second(m.DisconnectToken(ctx, "token", NormalClosure)),
		"Drain":           m.Drain(ctx, time.Second),
		"Progress":        m.Progress("cat").Fail("no"),
	} {
		if err == nil || !strings.Contains(err.Error(), "New") {
			t.Errorf("%s: %v, want a hint at New", name, err)
		}
	}
	m.Disconnect("ann", c)
	m.UnsubscribeUpload("ann", "cat")
	m.UnsubscribeConn("ann", c, "cat")
	if claims, failed := m.Claims("ann", c), m.BrokerFailed(); claims != nil || failed != nil {
		t.Errorf("Claims: %v, BrokerFailed: %v", claims, failed)
	}
	if m.Limits() != (Limits{}) || m.Written() != nil || m.ConnAge(registered) != 0 || m.Moment() != (Moment{}) {
		t.Error("it has limits, a tracer or a clock")
	}
	if s := m.Stats(); s != (Stats{}) {
		t.Errorf("Stats: %+v", s)
	}
}

// WaitReady returns when the node has joined the others, or with the reason why it has not.
func TestManager_WaitReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{})
		link := newLink(hub)
		m := open(t, Options{Broker: link})
		must(t, m.WaitReady(t.Context()))
		link.cut()
		synctest.Wait()
		ctx, cancel := contextOf(t, 10*time.Second)
		defer cancel()
		if err := m.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "broker") {
			t.Errorf("WaitReady: %v, want the reason", err)
		}
		link.mend()
		if err := m.WaitReady(t.Context()); err != nil || m.Ready() != nil {
			t.Errorf("WaitReady: %v, Ready: %v", err, m.Ready())
		}
	})
}

// WaitReady returns when the manager is closed, which is never ready again.
func TestManager_WaitReadyEndsWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alone, err := New(Options{})
		must(t, err)
		must(t, alone.Close(t.Context()))
		if err := alone.Ready(); !errors.Is(err, ErrClosed) {
			t.Errorf("Ready: %v, want ErrClosed", err)
		}
		link := newLink(broker.NewMemory(broker.MemoryOptions{}))
		m, err := New(Options{Broker: link})
		must(t, err)
		synctest.Wait()
		link.cut()
		waited := make(chan error, 1)
		go func() { waited <- m.WaitReady(context.Background()) }()
		synctest.Wait()
		_ = m.Close(context.Background())
		if err := <-waited; !errors.Is(err, ErrClosed) {
			t.Errorf("WaitReady: %v, want ErrClosed", err)
		}
	})
}

// A connection that panics costs no other connection its messages and does not end the process, however many receivers
// an upload has. The panic is logged without its value.
func TestSend_PanicEndsNoOtherDelivery(t *testing.T) {
	for _, receivers := range []int{3, 3 * fanOutAlone} {
		t.Run(fmt.Sprint(receivers), func(t *testing.T) {
			var log testlog.Buffer
			m := open(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), MaxConnectionsPerUser: -1})
			var conns []*fakeConn
			for i := range receivers {
				c := &fakeConn{}
				if i%100 == 1 {
					c.onSend = func(*Frame) Outcome { panic("secret-4711") }
					c.onClose = func(CloseReason) { panic("secret-4711") }
				}
				user := fmt.Sprint("user ", i)
				must(t, m.Connect(user, c))
				must(t, m.SubscribeUpload(t.Context(), user, "cat"))
				conns = append(conns, c)
			}
			publish(t, m, "cat", 1)
			flushAll(m)
			for i, c := range conns {
				if i%100 != 1 && len(c.received(t)) != 1 {
					t.Fatalf("connection %d has got %d messages", i, len(c.received(t)))
				}
			}
			if _, err := m.SendToUser(t.Context(), "user 1", note(t, 2)); err != nil {
				t.Error(err)
			}
			if n, err := m.DisconnectUser(t.Context(), "user 1", NormalClosure); n != 1 || err != nil {
				t.Errorf("%d closed, %v", n, err)
			}
			if m.Stats().Panics == 0 {
				t.Error("no panic is counted")
			}
			m.guard.running.Wait()
			if text := log.String(); !strings.Contains(text, "panic in a connection") || strings.Contains(text, "4711") {
				t.Errorf("logged: %.300s", text)
			}
		})
	}
}

// A further call of Close waits for the first.
func TestClose_ConcurrentCallsWaitForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := New(Options{})
		must(t, err)
		c := &stuck{done: make(chan struct{}), deaf: true}
		must(t, m.Connect("ann", c))
		begin := time.Now()
		results := make(chan time.Duration, 2)
		for range 2 {
			go func() {
				ctx, cancel := contextOf(t, time.Minute)
				defer cancel()
				_ = m.Close(ctx)
				results <- time.Since(begin)
			}()
		}
		synctest.Wait()
		for range 2 {
			if waited := <-results; waited != time.Minute {
				t.Errorf("Close returned after %v, want a minute", waited)
			}
		}
		close(c.done)
	})
}

func contextOf(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(context.Background(), d)
}

// wrapper is a comparable type that may hold a value that is not: only the value decides.
type wrapper struct{ inner any }

func (wrapper) Send(*Frame) Outcome { return Queued }

func (wrapper) Close(CloseReason) {}

func TestConnect_RefusesConnectionsThatHoldUncomparableValues(t *testing.T) {
	m := open(t, Options{})
	var invalid *InvalidError
	if err := m.Connect("ann", wrapper{[]int{1}}); !errors.As(err, &invalid) || invalid.Field != "connection" {
		t.Errorf("%v, want an *InvalidError", err)
	}
	m.Disconnect("ann", wrapper{[]int{1}})
	must(t, m.Connect("ann", wrapper{1}))
}

// A Send without a return value of its own delivers nothing, so it must not count as delivered.
func TestOutcome_ZeroCountsAsDropped(t *testing.T) {
	m := open(t, Options{})
	must(t, m.Connect("ann", &fakeConn{onSend: func(*Frame) (forgotten Outcome) { return forgotten }}))
	if d, err := m.SendToUser(t.Context(), "ann", note(t, 1)); err != nil || d != (Delivery{Dropped: 1}) {
		t.Errorf("%+v, %v", d, err)
	}
}

// A Conn gets the position of each message, also of the stored ones, from a node that is alone and from a cluster.
func TestFrame_HasThePositionOfItsMessage(t *testing.T) {
	check := func(t *testing.T, m *Manager) {
		first := publish(t, m, "cat", 1)
		c := connect(t, m, "ann")
		must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
		second := publish(t, m, "cat", 1)
		synctest.Wait()
		if n := len(c.frames); n != 2 {
			t.Fatalf("%d messages came", n)
		}
		for i, want := range []Position{first, second} {
			if f := c.frames[i]; f.Epoch() != want.Epoch || f.Offset() != want.Offset || f.Epoch() == "" {
				t.Errorf("message %d is at %s:%d, want %v", i, f.Epoch(), f.Offset(), want)
			}
		}
	}
	t.Run("alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { check(t, open(t, Options{})) })
	})
	t.Run("cluster", func(t *testing.T) {
		inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) { check(t, nodes[0].Manager) })
	})
}

// tokenSet is a connection that has shown several tokens.
type tokenSet struct {
	fakeConn
	tokens []string
}

func (s *tokenSet) HasToken(id string) bool { return slices.Contains(s.tokens, id) }

// DisconnectToken finds a connection by each of the tokens that it has shown.
func TestManager_DisconnectTokenFindsEachTokenOfAConnection(t *testing.T) {
	m := open(t, Options{})
	for _, token := range []string{"first", "second"} {
		c := &tokenSet{tokens: []string{"first", "second"}}
		must(t, m.Connect("ann", c))
		if n, err := m.DisconnectToken(t.Context(), token, NormalClosure); n != 1 || err != nil || len(c.closed()) != 1 {
			t.Errorf("%s: %d closed, %v", token, n, err)
		}
	}
}

// claimObserver counts the calls of FlushClaims.
type claimObserver struct {
	fakeConn
	flushed int
}

func (*claimObserver) ClaimChanged(ClaimChange) {}
func (c *claimObserver) FlushClaims()           { c.flushed++ }

// FlushClaims follows changes of claims alone, and is not called for a connection that is not registered.
func TestSubscribeConn_FlushesChangedClaimsOnly(t *testing.T) {
	m, c := open(t, Options{}), &claimObserver{}
	if err := m.SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{}); !errors.Is(err, ErrNotConnected) {
		t.Errorf("%v, want ErrNotConnected", err)
	}
	if c.flushed != 0 {
		t.Error("FlushClaims was called although no claim has changed")
	}
	must(t, m.Connect("ann", c))
	must(t, m.SubscribeConn(t.Context(), "ann", c, "cat", SubscribeOptions{}))
	if c.flushed != 1 {
		t.Errorf("FlushClaims was called %d times, want once", c.flushed)
	}
}

// Claims are the uploads that the connection itself follows, and Admissible respects the limit of the user.
func TestManager_ClaimsAndAdmissible(t *testing.T) {
	m := open(t, Options{MaxSubscriptionsPerUser: 3})
	one, other := &fakeConn{}, &fakeConn{}
	must(t, m.Connect("ann", one))
	must(t, m.Connect("ann", other))
	for _, id := range []string{"a", "b"} {
		must(t, m.SubscribeConn(t.Context(), "ann", one, id, SubscribeOptions{}))
	}
	must(t, m.SubscribeConn(t.Context(), "ann", other, "b", SubscribeOptions{}))
	got := m.Claims("ann", one)
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b"}) || !slices.Equal(m.Claims("ann", other), []string{"b"}) || m.Claims("bob", one) != nil {
		t.Errorf("claims are %q, %q", got, m.Claims("ann", other))
	}
	admitted, err := m.Admissible("ann", one, "a", "x", "y", "b")
	if err != nil || !slices.Equal(admitted, []string{"a", "x", "b"}) {
		t.Errorf("admitted %q, %v", admitted, err)
	}
	if _, err := m.Admissible("bob", one, "a"); !errors.Is(err, ErrNotConnected) {
		t.Errorf("a stranger: %v, want ErrNotConnected", err)
	}
	if l := m.Limits(); l.MaxSubscriptionsPerUser != 3 || l.MaxMessageBytes != 64<<10 {
		t.Errorf("limits are %+v", l)
	}
}

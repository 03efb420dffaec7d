package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestDrain_SpreadsTheClosing(t *testing.T) {
	const (
		conns  = 50
		spread = 10 * time.Second
	)
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{MaxConnectionsPerUser: -1})
		begin := time.Now()
		closedAt := map[int]time.Duration{}
		var order []int
		for i := range conns {
			c := &fakeConn{onClose: func(CloseReason) {
				closedAt[i] = time.Since(begin)
				order = append(order, i)
			}}
			must(t, m.Connect("ann", c))
		}
		must(t, m.Drain(t.Context(), spread))
		for turn, i := range order {
			if want := spread * time.Duration(turn) / conns; closedAt[i].Round(time.Microsecond) != want {
				t.Errorf("closing %d came at %v, want %v", turn, closedAt[i], want)
			}
		}
		if len(order) != conns || slices.IsSorted(order) {
			t.Errorf("the connections were closed in the order %v", order)
		}
		if got := m.Stats().Connections; got != 0 {
			t.Errorf("%d connections are left", got)
		}
	})
}

// TestDrain_KeepsItsDeadline: the deadline overrides the even spread; the remaining connections are closed at once.
func TestDrain_KeepsItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{})
		var conns []*fakeConn
		for range 20 {
			conns = append(conns, connect(t, m, "ann"))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begin := time.Now()
		must(t, m.Drain(ctx, time.Hour))
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		for i, c := range conns {
			if got := c.closed(); len(got) != 1 || got[0] != ServerReloading {
				t.Errorf("connection %d was closed with %v", i, got)
			}
		}
	})
}

// TestDrain_RestIsNotCutOff: connections whose turn would come after the deadline are closed early enough to end by
// themselves.
func TestDrain_RestIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{MaxConnectionsPerUser: -1})
		for range 100 {
			c := newStuck(false)
			c.onClose = func(CloseReason) { time.AfterFunc(200*time.Millisecond, func() { close(c.done) }) }
			must(t, m.Connect("ann", c))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		must(t, m.Drain(ctx, time.Hour))
	})
}

// TestDrain_CancelledClosesTheRest: a caller that no longer waits gets its error at once, and all remaining connections
// get their close frames: none is left out or cut off.
func TestDrain_CancelledClosesTheRest(t *testing.T) {
	for _, spread := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			m := open(t, Options{MaxConnectionsPerUser: -1})
			var conns []*stuck
			for range 600 {
				c := newStuck(false)
				must(t, m.Connect("ann", c))
				conns = append(conns, c)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			time.AfterFunc(time.Second, cancel)
			begin := time.Now()
			if err := m.Drain(ctx, spread); !errors.Is(err, context.Canceled) {
				t.Errorf("spread %v: %v, want the context's error", spread, err)
			}
			if took := time.Since(begin); took != time.Second {
				t.Errorf("spread %v: it returned after %v, want 1s", spread, took)
			}
			for i, c := range conns {
				if got := c.closed(); len(got) != 1 || got[0] != ServerReloading || c.aborted > 0 {
					t.Fatalf("spread %v: connection %d was closed with %v and cut off %d times", spread, i, got, c.aborted)
				}
			}
		})
	}
}

// TestDrain_CutsOffWhatItCannotClose: after the deadline nothing is closed any more, and nothing is left open.
func TestDrain_CutsOffWhatItCannotClose(t *testing.T) {
	m := open(t, Options{MaxConnectionsPerUser: -1})
	var conns []*stuck
	for range 600 {
		c := newStuck(false)
		must(t, m.Connect("ann", c))
		conns = append(conns, c)
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if err := m.Drain(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's error", err)
	}
	for i, c := range conns {
		if c.aborted != 1 {
			t.Fatalf("connection %d was cut off %d times", i, c.aborted)
		}
	}
}

// slowEnd is a connection whose end takes processor time, so that many of them end one after the other.
type slowEnd struct{ *stuck }

func (c slowEnd) Abort() {
	<-time.After(50 * time.Microsecond)
	c.stuck.Abort()
}

// TestDisconnectAll_CutsOffManyInTime: the more connections are left, the earlier they are cut off.
func TestDisconnectAll_CutsOffManyInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{MaxConnectionsPerUser: -1})
		const count, deadline = 5_000, time.Second
		for range count {
			must(t, m.Connect("ann", slowEnd{newStuck(false)}))
		}
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		begin := time.Now()
		err := m.DisconnectAll(ctx)
		if took := time.Since(begin); took > deadline || err == nil || !strings.Contains(err.Error(), "5000 connections had not ended and were cut off") {
			t.Errorf("it took %v and returned %v", took, err)
		}
	})
}

// Who ends in time is waited for, and not cut off.
func TestDisconnectAll_WaitsForEndingConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{})
		var conns []*stuck
		for i := range 3 {
			c := newStuck(false)
			c.onClose = func(CloseReason) { time.AfterFunc(time.Duration(i)*time.Second, func() { close(c.done) }) }
			conns = append(conns, c)
			must(t, m.Connect("ann", c))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		must(t, m.DisconnectAll(ctx))
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("it took %v, the last connection 2s", took)
		}
		for _, c := range conns {
			if c.aborted > 0 {
				t.Error("a connection that ended was cut off")
			}
		}
	})
}

func TestDisconnectAll_LeavesTheManagerOpen(t *testing.T) {
	m := open(t, Options{})
	connect(t, m, "ann")
	must(t, m.DisconnectAll(t.Context()))
	c := connect(t, m, "ann")
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	publish(t, m, "cat", 1)
	wantConsecutive(t, c.offsets(), 1, 1)
}

func TestClose_RefusesEverythingAfterwards(t *testing.T) {
	m := open(t, Options{})
	c := connect(t, m, "ann")
	must(t, m.Close(t.Context()))
	must(t, m.Close(t.Context()))
	if got := c.closed(); len(got) != 1 || got[0] != ServerReloading {
		t.Errorf("the connection was closed with %v", got)
	}
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"Connect":                 func() error { return m.Connect("ann", &fakeConn{}) },
		"SubscribeUpload":         func() error { return m.SubscribeUpload(ctx, "ann", "cat") },
		"SubscribeConn":           func() error { return m.SubscribeConn(ctx, "ann", c, "cat", SubscribeOptions{}) },
		"Resume":                  func() error { _, err := m.Resume(ctx, "ann", c, map[string]Position{"cat": {}}); return err },
		"Publish":                 func() error { _, err := m.Publish(ctx, "cat", note(t, 1)); return err },
		"SendToUploadSubscribers": func() error { _, err := m.SendToUploadSubscribers("cat", note(t, 1)); return err },
		"SendToUser":              func() error { _, err := m.SendToUser(t.Context(), "ann", note(t, 1)); return err },
		"Forget":                  func() error { return m.Forget(ctx, "cat") },
	} {
		if err := call(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if n := len(c.received(t)); n != 1 {
		t.Errorf("the connection received %d frames, want its close alone", n)
	}
}

// TestConnect_RacesWithClose: a connection made during Close is either refused or closed.
func TestConnect_RacesWithClose(t *testing.T) {
	for range 100 {
		m, err := New(Options{Shards: 1})
		must(t, err)
		conns, results := make([]*fakeConn, 8), make(chan error)
		for i := range conns {
			conns[i] = &fakeConn{}
			go func() { results <- m.Connect(fmt.Sprint("user ", i), conns[i]) }()
		}
		must(t, m.Close(context.Background()))
		refused := 0
		for range conns {
			if err := <-results; errors.Is(err, ErrClosed) {
				refused++
			}
		}
		closed := 0
		for _, c := range conns {
			closed += len(c.closed())
		}
		if refused+closed < len(conns) || m.Stats().Connections != 0 {
			t.Fatalf("of %d connections %d were refused and %d closed; left are %d",
				len(conns), refused, closed, m.Stats().Connections)
		}
	}
}

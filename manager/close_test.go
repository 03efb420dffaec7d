package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// interposed is a context that calls a function when its error is asked for: after a method has found its manager open,
// and before it does anything.
type interposed struct {
	context.Context //nolint:containedctx // it stands for its context
	call            func()
}

func (c interposed) Err() error {
	c.call()
	return nil
}

// TestClose_RacingSubscribeUpload: a subscription that begins before Close and ends after it is refused, and leaves
// nothing in the registry.
func TestClose_RacingSubscribeUpload(t *testing.T) {
	m := open(t, Options{})
	ctx := interposed{t.Context(), func() { must(t, m.Close(context.Background())) }}
	if err := m.SubscribeUpload(ctx, "ann", "cat"); !errors.Is(err, ErrClosed) {
		t.Errorf("SubscribeUpload: %v, want ErrClosed", err)
	}
	wantEmpty(t, m)
}

// TestDisconnect_NewestFirst: the registry finds the newest connections of a user first, so in the opposite order the
// time for closing all of them would grow with the square of their number.
func TestDisconnect_NewestFirst(t *testing.T) {
	order, ctx := []int{}, t.Context()
	for name, closeAll := range map[string]func(*Manager) (int, error){
		"user":  func(m *Manager) (int, error) { return m.DisconnectUser(ctx, "ann", CloseReason{}) },
		"token": func(m *Manager) (int, error) { return m.DisconnectToken(ctx, "t", CloseReason{}) },
		"late orders": func(m *Manager) (int, error) {
			late := closeOrder{Kind: closeUser, UserID: "ann", issued: m.ages.read()}
			return m.carryOutLate([]closeOrder{late}), nil
		},
		"late orders for tokens": func(m *Manager) (int, error) {
			late := closeOrder{Kind: closeToken, TokenID: "t", issued: m.ages.read()}
			return m.carryOutLate([]closeOrder{late}), nil
		},
	} {
		m := open(t, Options{})
		order = order[:0]
		for i := range 3 {
			c := &holder{token: "t"}
			c.onClose = func(CloseReason) { order = append(order, i) }
			must(t, m.Connect("ann", c))
		}
		if closed, err := closeAll(m); err != nil || closed != 3 || !slices.Equal(order, []int{2, 1, 0}) {
			t.Errorf("%s: %d connections were closed, in the order %v, %v", name, closed, order, err)
		}
	}
}

// TestClose_EndsReads: a closed node says so instead of calling its broker out of reach.
func TestClose_EndsReads(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		m, ctx := nodes[0].Manager, t.Context()
		must(t, m.Close(ctx))
		for name, err := range map[string]error{
			"Newest":      third(m.Newest(ctx, "cat")),
			"History":     second(m.History(ctx, "cat", Position{})),
			"Subscribers": second(m.Subscribers(ctx, "cat")),
			"NodeStats":   third(m.NodeStats(ctx)),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v, want ErrClosed", name, err)
			}
		}
	})
}

// TestClose_EndsPendingSubscriptions: users who wait for a connection do not outlive the manager.
func TestClose_EndsPendingSubscriptions(t *testing.T) {
	m := open(t, Options{})
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	must(t, m.SubscribeUpload(t.Context(), "ann", "dog"))
	connect(t, m, "bob")
	must(t, m.SubscribeUpload(t.Context(), "bob", "cat"))
	if n := m.Stats().Pending; n != 1 {
		t.Fatalf("%d users are pending, want 1", n)
	}
	must(t, m.Close(context.Background()))
	wantEmpty(t, m)
}

// wantEmpty checks that the registry holds no users and no subscriptions.
func wantEmpty(t *testing.T, m *Manager) {
	t.Helper()
	if s := m.Stats(); s.Users != 0 || s.Connections != 0 || s.Subscriptions != 0 || s.Pending != 0 {
		t.Errorf("%d users with %d connections and %d subscriptions, %d of them pending, are left",
			s.Users, s.Connections, s.Subscriptions, s.Pending)
	}
}

// TestClose_EndsEviction: an eviction that is under way visits no further uploads.
func TestClose_EndsEviction(t *testing.T) {
	m := open(t, Options{})
	for i := range 100 {
		publish(t, m, fmt.Sprint(i), 1)
	}
	calls := 0
	m.evictOldest(evictionGroup{messages: true}, func(int) bool {
		if calls++; calls == 5 {
			must(t, m.Close(context.Background()))
		}
		return true
	})
	if evicted := m.held.evicted.Load(); evicted == 0 || evicted > 5 {
		t.Errorf("%d uploads were evicted, want only those before Close", evicted)
	}
}

// TestClose_ReturnsDuringEviction: Close waits for an eviction only until its context ends.
func TestClose_ReturnsDuringEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := New(Options{})
		must(t, err)
		over := make(chan struct{})
		m.sweeping.Go(func() { <-over }) // stands for a long eviction
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v, want that the time is over", err)
		}
		close(over)
		m.sweeping.Wait()
	})
}

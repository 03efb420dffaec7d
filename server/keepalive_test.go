package server

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// keepaliveClient returns a client of a server whose keepalive has passed just now.
func keepaliveClient(t *testing.T) *Client {
	t.Helper()
	m, err := manager.New(manager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{
		Manager:      m,
		Authenticate: func(context.Context, string) (Identity, error) { return Identity{UserID: "u"}, nil },
		Authorize:    AuthorizeOpen,
	})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	c := newClient(s, near, false)
	t.Cleanup(func() {
		c.Abort()
		_ = far.Close()
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// A token whose end has passed on the wall clock, by a step of it, ends its connection with the next pass, although the
// timer, which follows the monotonic clock, has not fired.
func TestKeepalive_ClosesConnectionsOfExpiredTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := keepaliveClient(t)
		c.mu.Lock()
		c.stage, c.identity = open, Identity{UserID: "ann", Expires: time.Now().Add(-time.Second)}
		c.mu.Unlock()
		k := c.server.keepalive
		k.add(c)
		defer k.remove(c)
		k.ping(c.pingGroup)
		if c.CloseReason() != manager.InvalidToken {
			t.Errorf("closed with %v, want InvalidToken", c.CloseReason())
		}
	})
}

// A pause of the process, as by a suspended machine, does not count as silence of its clients.
func TestKeepalive_IgnoresPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := keepaliveClient(t)
		k := c.server.keepalive
		<-time.After(20 * time.Second)
		if silent := c.SilentFor(); silent < 19*time.Second {
			t.Fatalf("silent for %v, want about 20s", silent)
		}
		// As if the goroutine had last run an hour ago.
		k.lastPass.Store(int64(c.server.clock() - time.Hour))
		if silent := c.SilentFor(); silent != 0 {
			t.Errorf("silent for %v right after a pause, want 0", silent)
		}
		k.notePause()
		<-time.After(10 * time.Second)
		if silent := c.SilentFor(); silent < 9*time.Second || silent > 11*time.Second {
			t.Errorf("silent for %v, want the 10s since the pause", silent)
		}
	})
}

// A client is not silent while a hook is running on its behalf, which delays the reading of its answers to pings.
func TestKeepalive_RunningHookIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openClient(t, Identity{UserID: "ann"})
		c.call("Authorize", time.Hour, func(context.Context) {
			<-time.After(10 * time.Minute)
			c.closeIfSilent()
		})
		c.closeIfSilent()
		if silent := c.SilentFor(); silent != 0 || !c.authenticated() {
			t.Errorf("silent for %v after a hook of 10m, open %v", silent, c.authenticated())
		}
		<-time.After(c.server.opt.IdleTimeout + time.Second)
		if c.closeIfSilent(); c.authenticated() {
			t.Error("a client that is silent after the hook stays open")
		}
	})
}

package server_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// hookLog records the calls of hooks as text, in their order.
type hookLog struct {
	mu    sync.Mutex
	calls []string
}

func (l *hookLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, fmt.Sprintf(format, args...))
}

// all returns the calls so far.
func (l *hookLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

// want waits for a number of calls and compares them.
func (l *hookLog) want(t *testing.T, want ...string) {
	t.Helper()
	waitFor(t, func() bool { return len(l.all()) >= len(want) })
	if got := l.all(); !slices.Equal(got, want) {
		t.Errorf("the hooks were called as\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// observe makes hooks write to the log.
func (l *hookLog) observe(_ *manager.Options, o *server.Options) {
	o.OnConnect = func(c *server.Client) { l.add("connect %s", c.UserID()) }
	o.OnSubscribe = func(c *server.Client, s server.Subscription) {
		l.add("subscribe %s %s %s %v", c.UserID(), s.UploadID, s.Reason, s.UserFollows)
	}
	o.OnUnsubscribe = func(c *server.Client, s server.Subscription) {
		l.add("unsubscribe %s %s %s %v", c.UserID(), s.UploadID, s.Reason, s.UserFollows)
	}
	o.OnDisconnect = func(c *server.Client, reason manager.CloseReason) { l.add("disconnect %s %d", c.UserID(), reason.Code) }
}

// The subscription hooks see each claim once, with the reason of its beginning and of its end, between OnConnect and
// OnDisconnect.
func TestSubscriptionHooks_SeeEachClaimOnce(t *testing.T) {
	var log hookLog
	n := start(t, log.observe)
	c := n.login("ann", "shoal.v1")
	for range 2 {
		c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
		c.next()
	}
	c.send(`{"action":"subscribe_upload","upload_id":"secret"}`)
	c.next()
	c.send(`{"action":"resume","uploads":{"a":{"epoch":"e","offset":1},"b":{"epoch":"e","offset":1},"c":{"epoch":"e","offset":1}}}`)
	c.next()
	for range 2 {
		c.send(`{"action":"unsubscribe_upload","upload_id":"a"}`)
		c.next()
	}
	n.manager.UnsubscribeUpload("ann", "b")
	if _, err := n.manager.DisconnectUser(t.Context(), "ann", manager.TryAgainLater); err != nil {
		t.Fatal(err)
	}
	c.wantClose(manager.TryAgainLater)
	log.want(t, "connect ann", "subscribe ann a client false", "subscribe ann b client false", "subscribe ann c client false",
		"unsubscribe ann a client false", "unsubscribe ann b application false",
		"unsubscribe ann c connection ended false", "disconnect ann 1013")
}

// A claim passes to the user with the end of its connection while another connection is left.
func TestSubscriptionHooks_TellWhetherTheUserStillFollows(t *testing.T) {
	var log hookLog
	n := start(t, log.observe)
	first, second := n.login("ann", "shoal.v1"), n.login("ann", "shoal.v1")
	waitFor(t, func() bool { return len(log.all()) == 2 })
	for i, c := range []*client{first, second} {
		c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
		waitFor(t, func() bool { return len(log.all()) == 3+i })
	}
	_ = first.conn.CloseNow()
	waitFor(t, func() bool { return len(log.all()) == 6 })
	_ = second.conn.CloseNow()
	log.want(t, "connect ann", "connect ann", "subscribe ann a client false", "subscribe ann a client true",
		"unsubscribe ann a connection ended true", "disconnect ann 0",
		"unsubscribe ann a connection ended false", "disconnect ann 0")
}

// A narrower token ends claims, and a claim that OnConnect makes is reported after OnConnect has returned.
func TestSubscriptionHooks_ReportForbiddenAndOwnClaims(t *testing.T) {
	var log hookLog
	n := start(t, log.observe, func(_ *manager.Options, o *server.Options) {
		o.Authenticate = func(_ context.Context, token string) (server.Identity, error) {
			return server.Identity{UserID: "ann", Uploads: strings.Fields(token), Data: "tenant " + token}, nil
		}
		o.Authorize = server.AuthorizeClaims
	}, func(_ *manager.Options, o *server.Options) {
		o.OnConnect = func(c *server.Client) {
			if err := o.Manager.SubscribeConn(c.Context(), c.UserID(), c, "b", manager.SubscribeOptions{}); err != nil {
				t.Error(err)
			}
			log.add("connected as %v", c.Identity().Data)
		}
	})
	c := n.open("shoal.v1")
	c.send(`{"type":"auth","token":"a b"}`)
	c.next()
	c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	c.next()
	c.send(`{"type":"auth","token":"b"}`)
	log.want(t, "connected as tenant a b", "subscribe ann b application false", "subscribe ann a client false",
		"unsubscribe ann a forbidden false")
}

// A panic in a subscription hook closes its connection only, and the claim still ends once.
func TestSubscriptionHooks_PanicEndsOnlyItsConnection(t *testing.T) {
	var log hookLog
	n := start(t, log.observe, func(_ *manager.Options, o *server.Options) {
		o.OnSubscribe = func(*server.Client, server.Subscription) { panic("a hook with a bug") }
	})
	c := n.login("ann")
	c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	c.wantClose(manager.InternalError)
	log.want(t, "connect ann", "unsubscribe ann a connection ended false", "disconnect ann 1011")
	if n.server.Stats().Panics != 1 {
		t.Errorf("%d panics are counted, want 1", n.server.Stats().Panics)
	}
}

// The hooks of one connection see subscribe and unsubscribe in turn, whatever clients and the application do at once,
// and may call the manager.
func TestSubscriptionHooks_PairUnderLoad(t *testing.T) {
	var mu sync.Mutex
	open := map[*server.Client]map[string]bool{}
	check := func(c *server.Client, s server.Subscription, claimed bool) {
		mu.Lock()
		defer mu.Unlock()
		if open[c] == nil || open[c][s.UploadID] == claimed {
			t.Errorf("%v of %s, which is claimed: %v, connected: %v", claimed, s.UploadID, open[c][s.UploadID], open[c] != nil)
			return
		}
		open[c][s.UploadID] = claimed
	}
	n := start(t, func(mo *manager.Options, o *server.Options) {
		mo.MaxConnectionsPerUser = -1
		o.ClientMessageBurst = 1 << 20
		o.OnConnect = func(c *server.Client) {
			mu.Lock()
			defer mu.Unlock()
			open[c] = map[string]bool{}
		}
		o.OnSubscribe = func(c *server.Client, s server.Subscription) {
			check(c, s, true)
			if rand.IntN(4) == 0 {
				o.Manager.UnsubscribeConn(c.UserID(), c, s.UploadID)
			}
		}
		o.OnUnsubscribe = func(c *server.Client, s server.Subscription) {
			check(c, s, false)
			o.Manager.UploadSubscriberIDs(s.UploadID)
		}
		o.OnDisconnect = func(c *server.Client, _ manager.CloseReason) {
			mu.Lock()
			defer mu.Unlock()
			for id, claimed := range open[c] {
				if claimed {
					t.Errorf("%s is claimed when its connection ends", id)
				}
			}
			delete(open, c)
		}
	})
	upload := func() string { return fmt.Sprint("upload ", rand.IntN(4)) }
	var work sync.WaitGroup
	for range 6 {
		c := n.login("ann")
		work.Go(func() {
			for range 200 {
				c.send(fmt.Sprintf(`{"action":"%s_upload","upload_id":"%s"}`, []string{"subscribe", "unsubscribe"}[rand.IntN(2)], upload()))
			}
			_ = c.conn.CloseNow()
		})
	}
	work.Go(func() {
		for range 500 {
			n.manager.UnsubscribeUpload("ann", upload())
		}
	})
	work.Wait()
	waitFor(t, func() bool { return n.server.Stats().Open == 0 })
	mu.Lock()
	defer mu.Unlock()
	if len(open) != 0 {
		t.Errorf("%d connections have not ended for the hooks", len(open))
	}
}

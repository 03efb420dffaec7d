package server_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// observations counts the calls of an Observer.
type observations struct {
	mu    sync.Mutex
	count map[string]int
}

func (o *observations) add(name string, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if took < 0 || took > patience {
		name += " with an absurd duration"
	}
	o.count[name]++
}

func (o *observations) get(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count[name]
}

func (o *observations) observer() server.Observer {
	o.count = make(map[string]int)
	return server.Observer{
		Written:       func(d time.Duration) { o.add("written", d) },
		Waited:        func(d time.Duration) { o.add("waited", d) },
		Authenticated: func(is server.Decision, d time.Duration) { o.add("authenticated "+string(is), d) },
		Authorized:    func(is server.Decision, d time.Duration) { o.add("authorized "+string(is), d) },
	}
}

func TestObserver_GetsDecisionsAndWrites(t *testing.T) {
	var o observations
	n := start(t, func(_ *manager.Options, so *server.Options) { so.Observer = o.observer() })
	ann := n.login("ann", "shoal.v1")
	for _, id := range []string{"a", "secret", "broken"} {
		ann.send(`{"action":"subscribe_upload","upload_id":"` + id + `"}`)
	}
	waitFor(t, func() bool {
		return o.get("authorized unavailable") == 1 && len(n.manager.UploadSubscriberIDs("a")) == 1
	})
	for _, token := range []string{"bad", "broken"} {
		c := n.open()
		c.send(`{"type":"auth","token":"` + token + `"}`)
		waitFor(t, func() bool { return o.get("authenticated denied")+o.get("authenticated unavailable") > 0 })
	}
	waitFor(t, func() bool { return o.get("authenticated denied") == 1 && o.get("authenticated unavailable") == 1 })
	n.publish("a", 1) // the first write after a pause is among the sample
	waitFor(t, func() bool { return o.get("written") > 0 })
	for name, want := range map[string]int{"authenticated allowed": 1, "authorized allowed": 1, "authorized denied": 1} {
		if got := o.get(name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	for name := range o.count {
		if len(name) > 30 {
			t.Error(name)
		}
	}
}

// A hook that does not return, because it panics or ends its goroutine, has allowed nothing.
func TestObserver_HookThatDoesNotReturnIsUnavailable(t *testing.T) {
	for _, fail := range []func(){func() { panic("a hook with a bug") }, runtime.Goexit} {
		for name, c := range map[string]struct {
			set  func(*server.Options, func(context.Context) error)
			want string
		}{
			"Authenticate": {setAuthenticate, "authenticated unavailable"},
			"Identify":     {setIdentify, "authenticated unavailable"},
			"Authorize":    {setAuthorize, "authorized unavailable"},
		} {
			for how, test := range hookTests[name] {
				t.Run(name+" "+how, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						var o observations
						n := startPiped(t, func(_ *manager.Options, so *server.Options) {
							c.set(so, func(context.Context) error { fail(); return nil })
							so.Observer, so.CloseTimeout = o.observer(), time.Second
						})
						test.call(n)
						synctest.Wait()
						allowed := 0
						if how == "renewal" || name == "Authorize" {
							allowed = 1 // the user was authenticated before
						}
						if o.get(c.want) == 0 || o.get("authorized allowed") != 0 || o.get("authenticated allowed") != allowed {
							t.Errorf("observed %v, want %s", o.count, c.want)
						}
						if name == "Authorize" && len(n.manager.UploadSubscriberIDs("a")) != 0 {
							t.Error("the user follows the upload")
						}
						<-time.After(time.Minute)
						if open := n.server.Stats().Open; open != 0 {
							t.Errorf("%d connections are open", open)
						}
					})
				})
			}
		}
	}
}

func TestInspect_CountsConnectionsAndTheirEnds(t *testing.T) {
	n := start(t)
	base, v1, violator := n.login("ann"), n.login("bob", "shoal.v1"), n.raw(t, "")
	waitFor(t, func() bool { // a written message counts until its writer has returned
		in := n.server.Inspect()
		return in.Base == 2 && in.V1 == 1 && in.QueuedMessages == 0 && in.QueuedBytes == 0
	})
	violator.write(0xff, "") // reserved bits and an opcode that there is not
	_ = base.conn.CloseNow()
	own := manager.CloseReason{Code: 3999, Text: "of the application"}
	if _, err := n.manager.DisconnectUser(t.Context(), "bob", own); err != nil {
		t.Error(err)
	}
	v1.wantClose(own)
	ends := func() map[string]uint64 {
		got := map[string]uint64{}
		for _, c := range n.server.Inspect().Closings {
			if c.Count > 0 {
				got[c.Reason] += c.Count
			}
		}
		return got
	}
	waitFor(t, func() bool { return n.server.Stats().Open == 0 })
	if got := ends(); got["client"] != 1 || got["other"] != 1 || got["protocol error"] != 1 || len(got) != 3 {
		t.Errorf("the connections ended by %v", got)
	}
}

// Every reason of the manager is counted by itself, and the number of reasons is bounded.
func TestInspect_NamesEveryCloseReason(t *testing.T) {
	n := start(t)
	named := map[string]bool{}
	closings := n.server.Inspect().Closings
	for _, c := range closings {
		named[c.Reason] = true
	}
	for _, reason := range []manager.CloseReason{
		manager.TooManyConnections, manager.TooManyMessages, manager.TooManySubscriptions, manager.MessageTooBig,
		manager.IdleTimeout, manager.ServerReloading, manager.SlowConsumer, manager.TryAgainLater,
		manager.InternalError, manager.AuthTimeout, manager.AuthRequired, manager.InvalidToken, manager.InvalidFormat,
	} {
		if !named[reason.Text] {
			t.Errorf("%q is not told apart", reason.Text)
		}
	}
	if len(closings) != 20 {
		t.Errorf("there are %d reasons", len(closings))
	}
}

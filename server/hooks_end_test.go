package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// hookTest has a hook of Options called, which blocks in block. call returns when that is under way.
type hookTest struct {
	set  func(o *server.Options, block func(context.Context) error)
	call func(n *node)
}

// hookTests are the ways in which each function of Options is called, by its name.
var hookTests = map[string]map[string]hookTest{
	"Authenticate": {
		"first message": {setAuthenticate, func(n *node) { n.open().sendOnly(`{"type":"auth","token":"blocked"}`) }},
		"renewal":       {setAuthenticate, func(n *node) { n.login("ann").sendOnly(`{"type":"auth","token":"blocked"}`) }},
		"handshake": {setAuthenticate, func(n *node) {
			n.ask("GET /ws/uploads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer blocked\r\n" + goodHandshake)
		}},
		"stream": {setAuthenticate, func(n *node) { n.askStream("blocked") }},
	},
	"Identify": {
		"handshake": {setIdentify, func(n *node) { n.ask("GET /ws/uploads HTTP/1.1\r\nHost: x\r\n" + goodHandshake) }},
		"stream":    {setIdentify, func(n *node) { n.askStream("ann") }},
	},
	"Authorize": {
		"subscription": {setAuthorize, func(n *node) { n.subscribing() }},
		"resume": {setAuthorize, func(n *node) {
			n.login("ann", "shoal.v1").sendOnly(
				`{"action":"resume","uploads":{"a":{"epoch":"e","offset":1},"b":{"epoch":"e","offset":1}}}`)
		}},
		"stream": {setAuthorize, func(n *node) { n.askStream("ann") }},
	},
	"AuthorizeAPI": {
		"request":   {setAuthorizeAPI, func(n *node) { n.ask("GET /v1/stats HTTP/1.1\r\nHost: x\r\n") }},
		"MayUseAPI": {setAuthorizeAPI, func(n *node) { go func() { defer recovered(); _ = n.server.MayUseAPI(apiRequest()) }() }},
	},
	"Ready": {"": {func(o *server.Options, block func(context.Context) error) {
		o.Ready = func() error { return block(nil) }
	}, func(n *node) { go func() { defer recovered(); _ = n.server.Ready() }() }}},
	"OnConnect": {
		"WebSocket": {setOnConnect, func(n *node) { n.login("ann").discard() }},
		"stream":    {setOnConnect, func(n *node) { n.askStream("ann") }},
	},
	"OnMessage": {"": {func(o *server.Options, block func(context.Context) error) {
		o.OnMessage = func(c *server.Client, _ server.Incoming) bool { return block(c.Context()) != nil }
	}, func(n *node) { n.login("ann").sendOnly(`{"action":"mine"}`) }}},
	"OnSubscribe": {
		"WebSocket":   {setOnSubscribe, func(n *node) { n.subscribing() }},
		"stream":      {setOnSubscribe, func(n *node) { n.askStream("ann") }},
		"application": {setOnSubscribe, func(n *node) { n.follow("a") }},
	},
	"OnUnsubscribe": {"": {func(o *server.Options, block func(context.Context) error) {
		o.OnUnsubscribe = func(c *server.Client, _ server.Subscription) { _ = block(c.Context()) }
	}, func(n *node) { n.subscribing()() }}},
	"OnDisconnect": {"": {func(o *server.Options, block func(context.Context) error) {
		o.OnDisconnect = func(c *server.Client, _ manager.CloseReason) { _ = block(c.Context()) }
	}, func(n *node) { n.subscribing()() }}},
}

func setAuthenticate(o *server.Options, block func(context.Context) error) {
	o.Authenticate = func(ctx context.Context, token string) (server.Identity, error) {
		if token != "blocked" {
			return server.Identity{UserID: token}, nil
		}
		return server.Identity{UserID: "ann"}, block(ctx)
	}
}

func setIdentify(o *server.Options, block func(context.Context) error) {
	o.Identify = func(r *http.Request) (server.Identity, error) {
		return server.Identity{UserID: "ann"}, block(r.Context())
	}
}

func setAuthorize(o *server.Options, block func(context.Context) error) {
	o.Authorize = func(ctx context.Context, _ server.Identity, _ string) error { return block(ctx) }
}

func setAuthorizeAPI(o *server.Options, block func(context.Context) error) {
	o.APIKeys, o.AuthorizeAPI = nil, func(r *http.Request) error { return block(r.Context()) }
}

func setOnConnect(o *server.Options, block func(context.Context) error) {
	o.OnConnect = func(c *server.Client) { _ = block(c.Context()) }
}

func setOnSubscribe(o *server.Options, block func(context.Context) error) {
	o.OnSubscribe = func(c *server.Client, _ server.Subscription) { _ = block(c.Context()) }
}

func apiRequest() *http.Request { return httptest.NewRequest(http.MethodGet, "/v1/stats", http.NoBody) }

// recovered ends a panic of a hook that the test has called.
func recovered() { _ = recover() }

// ask sends a request and discards all that comes.
func (n *node) ask(request string) {
	n.t.Helper()
	conn, err := n.dial(n.patienceContext(), "tcp", n.host)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		n.t.Fatal(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}()
}

func (n *node) askStream(token string) {
	n.t.Helper()
	n.ask("GET /events/uploads/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\n")
}

// subscribing subscribes a new client to an upload. leave ends its connection when it has subscribed.
func (n *node) subscribing() (leave func()) {
	c := n.login("ann", "shoal.v1")
	c.sendOnly(`{"action":"subscribe_upload","upload_id":"a"}`)
	return func() {
		waitFor(n.t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 1 })
		_ = c.conn.CloseNow()
	}
}

// follow has the application subscribe the connection of a new client.
func (n *node) follow(uploadID string) {
	n.login("ann").discard()
	synctest.Wait()
	c := n.manager.UserConnections("ann")[0]
	go func() {
		defer recovered()
		_ = n.manager.SubscribeConn(context.Background(), "ann", c, uploadID, manager.SubscribeOptions{})
	}()
}

// discard discards all that comes.
func (c *client) discard() {
	go func() {
		for {
			if _, _, err := c.conn.Read(c.ctx); err != nil {
				return
			}
		}
	}()
}

// sendOnly sends a message and discards all that comes.
func (c *client) sendOnly(text string) {
	c.t.Helper()
	c.send(text)
	c.discard()
}

// Every hook ends with the server if it heeds its context, and Close names one that does not.
func TestHooks_EndWithTheServer(t *testing.T) {
	for _, field := range reflect.VisibleFields(reflect.TypeFor[server.Options]()) {
		if field.Type.Kind() == reflect.Func && len(hookTests[field.Name]) == 0 {
			t.Errorf("Options.%s is not tested", field.Name)
		}
	}
	for name, calls := range hookTests {
		for how, test := range calls {
			t.Run(name+" "+how+" ends", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := test.start(t, func(ctx context.Context) error {
						if ctx == nil {
							return nil
						}
						<-ctx.Done()
						return ctx.Err()
					})
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					if err := n.server.Close(ctx); err != nil {
						t.Error(err)
					}
				})
			})
			t.Run(name+" "+how+" is named", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					release := make(chan struct{})
					defer close(release)
					n := test.start(t, func(context.Context) error { <-release; return nil })
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					err := n.server.Close(ctx)
					want := fmt.Sprintf("server: the hook %s has not returned for 1 connections", name)
					if err == nil || strings.Count(err.Error(), want) != 1 || !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("Close: %v, want the name of the hook once", err)
					}
				})
			})
		}
	}
}

// start starts a node and has the hook called with block. It returns when the hook has been called.
func (h hookTest) start(t *testing.T, block func(context.Context) error) *node {
	t.Helper()
	entered := make(chan struct{}, 16)
	n := startPiped(t, func(_ *manager.Options, o *server.Options) {
		o.HookTimeout, o.CloseTimeout = -1, 50*time.Millisecond
		h.set(o, func(ctx context.Context) error {
			entered <- struct{}{}
			return block(ctx)
		})
	})
	h.call(n)
	<-entered
	return n
}

// A hook that does not return, because it panics or ends its goroutine, ends its connection and nothing else: the
// connection and the hook count no longer, and the server can be closed.
func TestHooks_ThatDoNotReturnLeaveNothingBehind(t *testing.T) {
	for fault, fail := range map[string]func(){"panic": func() { panic("a hook with a bug") }, "Goexit": runtime.Goexit} {
		for name, calls := range hookTests {
			for how, test := range calls {
				t.Run(fault+" "+name+" "+how, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						n := test.start(t, func(context.Context) error { fail(); return nil })
						<-time.After(time.Minute)
						if s := n.server.Stats(); s.OpenByTransport != (server.OpenByTransport{}) || s.Users != 0 {
							t.Errorf("open are %+v of %d users", s.OpenByTransport, s.Users)
						}
						ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
						defer cancel()
						if err := n.server.Close(ctx); err != nil {
							t.Error(err)
						}
					})
				})
			}
		}
	}
}

// A hook that ends its goroutine, as t.FailNow does, keeps no other hook from being called.
func TestHooks_GoexitKeepsTheirOrder(t *testing.T) {
	var log hookLog
	n := start(t, log.observe, func(_ *manager.Options, o *server.Options) {
		subscribed, unsubscribed := o.OnSubscribe, o.OnUnsubscribe
		o.OnSubscribe = func(c *server.Client, s server.Subscription) { subscribed(c, s); runtime.Goexit() }
		o.OnUnsubscribe = func(c *server.Client, s server.Subscription) { unsubscribed(c, s); runtime.Goexit() }
	})
	c := n.login("ann", "shoal.v1")
	c.send(`{"action":"resume","uploads":{"a":{"epoch":"e","offset":1},"b":{"epoch":"e","offset":1}}}`)
	c.wantClose(manager.InternalError)
	waitFor(t, func() bool { return n.server.Stats().Open == 0 })
	calls := log.all()
	if len(calls) == 6 {
		slices.Sort(calls[3:5]) // the claims of a connection end in any order
	}
	if want := []string{"connect ann", "subscribe ann a client false", "subscribe ann b client false",
		"unsubscribe ann a connection ended false", "unsubscribe ann b connection ended false", "disconnect ann 1011",
	}; !slices.Equal(calls, want) {
		t.Errorf("the hooks were called as %q, want %q", calls, want)
	}
}

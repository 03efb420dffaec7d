package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// The context of a hook ends with the connection, whichever hook it is and however the connection was opened.
func TestClient_ContextEndsWithConnection(t *testing.T) {
	dial := func(header string) func(*testing.T, *node) io.Closer {
		return func(t *testing.T, n *node) io.Closer { return n.raw(t, header).conn }
	}
	stream := func(_ *testing.T, n *node) io.Closer { return n.dialEvents("blocked", "1.1") }
	message := func(first, second string) func(*testing.T, *node) io.Closer {
		return func(t *testing.T, n *node) io.Closer {
			c := n.raw(t, "")
			c.write(0x81, first)
			if second != "" {
				c.write(0x81, second)
			}
			return c.conn
		}
	}
	const login = `{"type":"auth","token":"ann"}`
	bearer := dial("Authorization: Bearer blocked\r\n")
	for name, test := range map[string]struct {
		set  func(*server.Options, func(context.Context) error)
		open func(*testing.T, *node) io.Closer
	}{
		"OnMessage":                   {hookTests["OnMessage"][""].set, message(login, `{"action":"mine"}`)},
		"Authorize":                   {setAuthorize, message(login, `{"action":"subscribe_upload","upload_id":"a"}`)},
		"Authenticate":                {setAuthenticate, message(`{"type":"auth","token":"blocked"}`, "")},
		"Authenticate of the upgrade": {setAuthenticate, bearer},
		"Authenticate of a stream":    {setAuthenticate, stream},
		"Identify of the upgrade": {setIdentify, func(_ *testing.T, n *node) io.Closer {
			return n.dialRequest("GET /ws/uploads HTTP/1.1\r\nHost: x\r\n" + goodHandshake + "\r\n")
		}},
		"Identify of a stream":     {setIdentify, stream},
		"OnConnect":                {setOnConnect, message(login, "")},
		"OnConnect of the upgrade": {setOnConnect, bearer},
		"OnConnect after Identify": {setOnConnectIdentified, dial("")},
		"OnConnect of a stream":    {setOnConnect, stream},
		"OnSubscribe of a stream":  {setOnSubscribe, stream},
		"Authorize of a stream":    {setAuthorize, stream},
		"AuthorizeAPI": {setAuthorizeAPI, func(_ *testing.T, n *node) io.Closer {
			return n.dialRequest("GET /v1/stats HTTP/1.1\r\nHost: x\r\n\r\n")
		}},
	} {
		for transport, start := range map[string]func(testing.TB, ...func(*manager.Options, *server.Options)) *node{
			"TCP": start, "TLS": startTLS,
		} {
			t.Run(name+" "+transport, func(t *testing.T) {
				running, ended := make(chan struct{}), make(chan struct{})
				n := start(t, func(_ *manager.Options, o *server.Options) {
					o.HookTimeout = -1
					test.set(o, func(ctx context.Context) error {
						close(running)
						<-ctx.Done()
						close(ended)
						return ctx.Err()
					})
				})
				conn := test.open(t, n)
				<-running
				if err := conn.Close(); err != nil {
					t.Fatal(err)
				}
				select {
				case <-ended:
				case <-time.After(patience):
					t.Error("the context outlives its connection")
				}
			})
		}
	}
}

func setOnConnectIdentified(o *server.Options, block func(context.Context) error) {
	o.Identify = func(*http.Request) (server.Identity, error) { return server.Identity{UserID: "ann"}, nil }
	setOnConnect(o, block)
}

// The context of a hook ends with a stream over HTTP/2 too.
func TestClient_ContextEndsWithHTTP2Stream(t *testing.T) {
	running, ended := make(chan struct{}), make(chan struct{})
	m := mount(t, unwrapped, func(srv *httptest.Server) { srv.EnableHTTP2 = true; srv.StartTLS() },
		func(_ *manager.Options, o *server.Options) {
			setOnConnect(o, func(ctx context.Context) error {
				close(running)
				<-ctx.Done()
				close(ended)
				return nil
			})
		})
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.http.URL+"/events/uploads/a?access_token=ann", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-running
		leave()
	}()
	if response, err := m.http.Client().Do(r); err == nil {
		_ = response.Body.Close()
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the context outlives its stream")
	}
}

// A client that reads gets all messages while OnConnect is running, more than its socket takes at once.
func TestClient_WritesWhileOnConnectRuns(t *testing.T) {
	const messages = 600
	for name, identify := range map[string]func(*http.Request) (server.Identity, error){
		"message": nil, "request": func(*http.Request) (server.Identity, error) { return server.Identity{UserID: "ann"}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			received := make(chan struct{})
			var n *node
			n = start(t, neverIdle, func(_ *manager.Options, o *server.Options) {
				o.Identify, o.QueueBytes, o.PingInterval = identify, 64<<20, 24*time.Hour
				o.OnConnect = func(c *server.Client) {
					if err := n.manager.SubscribeUpload(c.Context(), "ann", "a"); err != nil {
						t.Error(err)
					}
					message := fmt.Sprintf(`{"action":"note","pad":%q}`, strings.Repeat("x", 16<<10))
					for range messages {
						n.publishJSON("a", message)
					}
					<-received // a slow query
				}
			})
			defer close(received)
			c := n.open()
			if identify == nil {
				c.send(`{"type":"auth","token":"ann"}`)
				c.next()
			}
			for range messages {
				c.next()
			}
		})
	}
}

// A context that a hook first uses late has the state of that time: past its deadline, or ended with the hook.
func TestClient_ContextIsRightWhenUsedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept context.Context
		late := make(chan error, 1)
		n := startPiped(t, func(_ *manager.Options, o *server.Options) {
			o.HookTimeout = time.Second
			authenticate := o.Authenticate
			o.Authenticate = func(ctx context.Context, token string) (server.Identity, error) {
				kept = ctx
				return authenticate(ctx, token)
			}
			o.Authorize = func(ctx context.Context, _ server.Identity, _ string) error {
				deadline, _ := ctx.Deadline()
				<-time.After(time.Until(deadline))
				late <- ctx.Err()
				return nil
			}
		})
		c := n.login("ann")
		derived, cancel := context.WithCancel(kept)
		defer cancel()
		if kept.Err() != context.Canceled || derived.Err() != context.Canceled {
			t.Errorf("after its hook the context's error is %v, that of a derived one %v", kept.Err(), derived.Err())
		}
		c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
		if err := <-late; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after its deadline the context's error is %v", err)
		}
	})
}

package server_test

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/testlog"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func TestHooks_SeeConnectionsComeAndGo(t *testing.T) {
	var connected, disconnected atomic.Int64
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.OnConnect = func(c *server.Client) {
			if c.UserID() != "ann" || c.Subprotocol() != "shoal.v1" || c.RemoteAddr() == nil {
				t.Errorf("OnConnect was given %q %q", c.UserID(), c.Subprotocol())
			}
			connected.Add(1)
		}
		o.OnDisconnect = func(c *server.Client, _ manager.CloseReason) {
			if c.UserID() != "ann" {
				t.Errorf("OnDisconnect was given %q", c.UserID())
			}
			disconnected.Add(1)
		}
		o.OnMessage = func(c *server.Client, m server.Incoming) bool {
			if !strings.Contains(string(m.Data), `"echo"`) {
				return false
			}
			c.SendText(m.Data)
			return true
		}
	})
	anonymous := n.open()
	anonymous.send("x")
	anonymous.wantClose(manager.InvalidFormat)
	c := n.login("ann", "shoal.v1")
	c.send(`{"action":"echo"}`)
	c.want(`{"action":"echo"}`)
	c.send(`{"action":"other"}`)
	c.want(`{"action":"error","code":"unknown_action","message":"the action is not known here"}`)
	_ = c.conn.Close(1000, "")
	waitFor(t, func() bool { return disconnected.Load() == 1 })
	if connected.Load() != 1 {
		t.Errorf("OnConnect was called %d times, want once", connected.Load())
	}
}

func TestHooks_PanicEndsOnlyItsConnection(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.OnMessage = func(*server.Client, server.Incoming) bool { panic("a hook with a bug") }
	})
	c, other := n.login("ann"), n.login("bob")
	c.send(`{"action":"boom"}`)
	if _, _, err := c.conn.Read(c.ctx); err == nil {
		t.Error("the connection is still open")
	}
	other.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 1 })
	n.publish("a", 1)
	other.want(`{"action":"note","n":1}`)
}

// The record of a panic has the user and the stack, and the value only if it is the runtime's: any other may hold bytes
// of a client.
func TestHooks_PanicRecordHasNoPayload(t *testing.T) {
	for message, want := range map[string]string{
		`{"action":"payload"}`: "panic while handling a client", `{"action":"runtime"}`: "index out of range",
	} {
		var log testlog.Buffer
		n := start(t, func(_ *manager.Options, o *server.Options) {
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			o.OnMessage = func(_ *server.Client, m server.Incoming) bool {
				if strings.Contains(string(m.Data), "runtime") {
					_ = m.Data[len(m.Data)] //nolint:gocritic // panics on purpose
				}
				panic("bad message " + string(m.Data))
			}
		})
		c := n.login("ann")
		c.send(message)
		c.wantClose(manager.InternalError)
		waitFor(t, func() bool { return n.server.Stats().Panics == 1 })
		text := log.String()
		if !strings.Contains(text, want) || !strings.Contains(text, "user=ann") || !strings.Contains(text, "hooks_test.go") ||
			strings.Contains(text, "bad message") {
			t.Errorf("the log is\n%s\nwant %q, the user and the stack, without the message", text, want)
		}
	}
}

// At the limit of connections the node is not ready, so that a load balancer sends clients elsewhere.
func TestServer_FullIsNotReady(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.MaxConnections = 1 })
	if err := n.server.Ready(); err != nil {
		t.Error(err)
	}
	c := n.login("ann")
	if err := n.server.Ready(); err == nil || !strings.Contains(err.Error(), "full: 1 connections") {
		t.Errorf("Ready() = %v, want that it is full", err)
	}
	_ = c.conn.CloseNow()
	waitFor(t, func() bool { return n.server.Ready() == nil })
}

func TestHooks_PanicInOnDisconnect(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.OnDisconnect = func(*server.Client, manager.CloseReason) { panic("a hook with a bug") }
	})
	c := n.login("ann")
	_ = c.conn.Close(1000, "")
	waitFor(t, func() bool { return n.server.Stats().Open == 0 })
}

func TestServer_HandlerInAnotherMux(t *testing.T) {
	n := start(t)
	mux := http.NewServeMux()
	mux.Handle("/ws/uploads", n.server.Handler())
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hi")) })
	web := httptest.NewServer(mux)
	defer web.Close()
	mounted := *n
	mounted.host = strings.TrimPrefix(web.URL, "http://")
	c := mounted.login("ann")
	c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 1 })
	n.publish("a", 1)
	c.want(`{"action":"note","n":1}`)
	_ = c.conn.CloseNow()
}

func TestServer_HealthAndReadiness(t *testing.T) {
	n := start(t)
	status := func(path string) int {
		w := httptest.NewRecorder()
		n.server.AdminHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		return w.Code
	}
	if status("/healthz") != 200 || status("/readyz") != 200 {
		t.Error("a running server is not healthy and ready")
	}
	if err := n.server.Drain(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	if status("/healthz") != 200 || status("/readyz") != 503 {
		t.Error("a draining server is not healthy and not ready")
	}
}

func TestDrain_SpreadsTheClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t)
		const clients = 10
		ended := make(chan time.Duration, clients)
		begin := time.Now()
		for range clients {
			c := n.login("ann")
			go func() {
				c.wantClose(manager.ServerReloading)
				ended <- time.Since(begin)
			}()
		}
		synctest.Wait()
		begin = time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := n.server.Drain(ctx, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		for i := range clients {
			if at, due := <-ended, time.Duration(i)*time.Second; at != due {
				t.Errorf("connection %d was closed after %v, want %v", i, at, due)
			}
		}
	})
}

func TestOptions_AreCheckedAllAtOnce(t *testing.T) {
	_, err := server.New(server.Options{
		AllowedOrigins: []string{"example.com"}, ClientMessageBurst: -1, IdleTimeout: time.Second, QueueMessages: -1,
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, name := range []string{"Manager", "Authenticate", "Authorize", "AllowedOrigins", "ClientMessageBurst", "IdleTimeout", "QueueMessages"} {
		if !strings.Contains(err.Error(), "Options."+name+" ") {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
}

func TestServe_AfterCloseIsRefused(t *testing.T) {
	n := start(t)
	if err := n.server.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.server.Serve(ln); err != http.ErrServerClosed { //nolint:errorlint // documented to be this value
		t.Errorf("Serve returned %v, want ErrServerClosed", err)
	}
}

// The queue must hold the largest message, also where that is near the largest integer.
func TestOptions_QueueHoldsTheLargestMessage(t *testing.T) {
	for _, most := range []int{2000, math.MaxInt} {
		m, err := manager.New(manager.Options{MaxMessageBytes: most})
		if err != nil {
			t.Fatal(err)
		}
		opt := server.Options{Manager: m, Authenticate: tokens, Authorize: server.AuthorizeOpen, QueueBytes: 3000}
		if _, err := server.New(opt); err == nil || !strings.Contains(err.Error(), "Options.QueueBytes is 3000") {
			t.Errorf("messages of %d bytes: %v, want that the queue is too short", most, err)
		}
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

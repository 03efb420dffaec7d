package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// Close returns with its context whatever hook blocks, and names it.
func TestServer_CloseNamesHookThatBlocks(t *testing.T) {
	for name, set := range map[string]func(*server.Options, func()){
		"OnConnect":    func(o *server.Options, hook func()) { o.OnConnect = func(*server.Client) { hook() } },
		"OnDisconnect": func(o *server.Options, hook func()) { o.OnDisconnect = func(*server.Client) { hook() } },
		"OnMessage": func(o *server.Options, hook func()) {
			o.OnMessage = func(*server.Client, server.Incoming) bool { hook(); return true }
		},
	} {
		t.Run(name, func(t *testing.T) {
			entered, block := make(chan struct{}), make(chan struct{})
			n := start(t, func(_ *manager.Options, o *server.Options) {
				set(o, func() { close(entered); <-block })
				o.CloseTimeout = 50 * time.Millisecond
			})
			c := n.login("ann")
			c.send(`{"action":"mine"}`)
			if name == "OnDisconnect" {
				_ = c.conn.CloseNow()
			}
			<-entered
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			err := n.server.Close(ctx)
			if err == nil || !strings.Contains(err.Error(), "the hook "+name+" has not returned") || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close: %v, want the name of the hook", err)
			}
			close(block)
		})
	}
}

// Close may be called from a hook: it returns with its context.
func TestServer_CloseFromHookReturns(t *testing.T) {
	returned := make(chan error, 1)
	var n *node
	n = start(t, func(_ *manager.Options, o *server.Options) {
		o.CloseTimeout = 50 * time.Millisecond
		o.OnMessage = func(*server.Client, server.Incoming) bool {
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			defer cancel()
			returned <- n.server.Close(ctx)
			return true
		}
	})
	n.login("ann").send(`{"action":"mine"}`)
	select {
	case err := <-returned:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
	case <-time.After(patience):
		t.Error("Close does not return")
	}
}

// A server closes its own connections and no others of its manager.
func TestServer_CloseLeavesOthersConnections(t *testing.T) {
	n := start(t)
	second, err := server.New(server.Options{Manager: n.manager, Authenticate: tokens, Authorize: server.AuthorizeOpen})
	if err != nil {
		t.Fatal(err)
	}
	own := &recorder{}
	if err := n.manager.Connect("eve", own); err != nil {
		t.Fatal(err)
	}
	c := n.login("ann")
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
	c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 1 })
	if own.closed.Load() {
		t.Error("a connection of the embedder's own was closed")
	}
}

// recorder is a connection that notes whether it was closed.
type recorder struct{ closed atomic.Bool }

func (r *recorder) Send(*manager.Frame) manager.Outcome { return manager.Queued }
func (r *recorder) Close(manager.CloseReason)           { r.closed.Store(true) }

// Every path of a listener has a deadline: a body that does not come ends the connection.
func TestServer_EndsSlowRequests(t *testing.T) {
	for _, request := range []string{
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		"POST /ws/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		"GET /ws/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n" + goodHandshake + "\r\n",
		"POST /v1/uploads/u/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"",
	} {
		synctest.Test(t, func(t *testing.T) {
			n := startPiped(t)
			conn, err := n.dial(t.Context(), "tcp", "")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			begin := time.Now()
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, conn)
			if lasted := time.Since(begin); lasted > time.Minute {
				t.Errorf("%q: the connection lasted %v", request, lasted)
			}
		})
	}
}

// Beyond MaxSockets new connections are closed at once, whatever they send, and room is made when others leave.
func TestServer_BoundsSockets(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.MaxSockets = 3 })
	var idle []net.Conn
	for range 2 {
		conn, err := net.Dial("tcp", n.host)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Fatal(err)
		}
	}
	c := n.login("ann")
	over, err := net.Dial("tcp", n.host)
	if err != nil {
		t.Fatal(err)
	}
	_ = over.SetDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(over); len(got) != 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("got %q, %v; want the end of the connection", got, err)
	}
	for _, conn := range append(idle, over) {
		_ = conn.Close()
	}
	waitFor(t, func() bool {
		response, err := http.Get(fmt.Sprintf("http://%s/", n.host))
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return true
	})
	http.DefaultClient.CloseIdleConnections()
	c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 1 })
}

// failingListener fails to accept some times.
type failingListener struct {
	net.Listener
	failures atomic.Int64
}

type temporaryError struct{}

func (temporaryError) Error() string   { return "too many open files" }
func (temporaryError) Temporary() bool { return true }
func (temporaryError) Timeout() bool   { return false }

func (l *failingListener) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, temporaryError{}
	}
	return l.Listener.Accept()
}

// An error of Accept is logged and counted, and makes the server unready.
func TestServer_ReportsAcceptErrors(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &failingListener{Listener: inner}
	ln.failures.Store(3)
	n := startOn(t, ln)
	n.dial, n.patience = (&net.Dialer{}).DialContext, patience
	n.login("ann")
	if failed := n.server.Stats().AcceptErrors; failed != 3 {
		t.Errorf("%d errors of Accept counted, want 3", failed)
	}
	if status, text := n.ready(t); status != http.StatusServiceUnavailable || !strings.Contains(text, "too many open files") {
		t.Errorf("ready: %d %s", status, text)
	}
}

// ready asks the admin handler whether the server is ready.
func (n *node) ready(t *testing.T) (status int, text string) {
	t.Helper()
	w := newResponse()
	n.server.AdminHandler().ServeHTTP(w, newRequest(t, "/readyz"))
	return w.Code, w.Body.String()
}

func newResponse() *httptest.ResponseRecorder { return httptest.NewRecorder() }

func newRequest(t *testing.T, path string) *http.Request {
	t.Helper()
	return httptest.NewRequest(http.MethodGet, path, http.NoBody)
}

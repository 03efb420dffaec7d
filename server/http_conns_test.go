package server_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// idleSocket opens an HTTP connection that has been answered once.
func (n *node) idleSocket(header string) net.Conn {
	n.t.Helper()
	conn, err := net.Dial("tcp", n.host)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	n.httpGet(conn, header)
	return conn
}

// httpGet sends a request on a connection and reads the answer.
func (n *node) httpGet(conn net.Conn, header string) {
	n.t.Helper()
	_ = conn.SetDeadline(time.Now().Add(n.patience))
	const request = "POST /v1/none HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
	if _, err := io.WriteString(conn, request+header+"\r\n."); err != nil {
		n.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	_ = resp.Body.Close()
}

// ended reads the end of a connection.
func (n *node) ended(conn net.Conn) {
	n.t.Helper()
	_ = conn.SetDeadline(time.Now().Add(n.patience))
	if got, err := io.ReadAll(conn); len(got) != 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		n.t.Errorf("got %q, %v; want the end of the connection", got, err)
	}
}

// At MaxSockets a new connection replaces the one that has waited longest for a request, but no WebSocket and no
// connection of a publisher that has just sent one. If there are only those, the new one is closed, and the server is not ready.
func TestServer_BoundsSockets(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.MaxSockets = 3 })
	publisher := n.idleSocket("Authorization: Bearer key\r\n")
	// Connections are accepted in order, so this one waits for its request when ann has her connection.
	idle, err := net.Dial("tcp", n.host)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	c := n.login("ann")
	silent, err := net.Dial("tcp", n.host) // replaces idle
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	n.ended(idle)
	second := n.login("bob") // replaces silent
	n.ended(silent)
	over, err := net.Dial("tcp", n.host)
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	n.ended(over)
	ready := httptest.NewRecorder()
	n.server.AdminHandler().ServeHTTP(ready, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if ready.Code != http.StatusServiceUnavailable || !strings.Contains(ready.Body.String(), "3 sockets are in use") {
		t.Errorf("/readyz answers %d %q, want 503", ready.Code, ready.Body)
	}
	if refused := n.server.Stats().Refused.Sockets; refused != 1 {
		t.Errorf("%d sockets counted as refused, want 1", refused)
	}
	n.httpGet(publisher, "Authorization: Bearer key\r\n")
	for _, c := range []*client{c, second} {
		c.send(`{"action":"subscribe_upload","upload_id":"a"}`)
	}
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("a")) == 2 })
}

// A socket whose request for a WebSocket or an event stream is being decided counts once at MaxSockets, and a refused
// one too.
func TestServer_CountsSocketsOnce(t *testing.T) {
	asked, release := make(chan struct{}), make(chan error)
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.MaxSockets = 3
		o.Identify = func(r *http.Request) (server.Identity, error) {
			select {
			case asked <- struct{}{}:
				return server.Identity{UserID: "ann"}, <-release
			case <-r.Context().Done():
				return server.Identity{}, r.Context().Err()
			}
		}
	})
	for _, refused := range []error{http.ErrNoCookie, nil} {
		var conns []net.Conn
		for _, request := range []string{
			"GET /ws/uploads HTTP/1.1\r\n" + goodHandshake, "HEAD /events/uploads/a HTTP/1.1\r\n", "GET /events/uploads/a HTTP/1.1\r\n",
		} {
			e := n.exchange(t)
			e.send(request + "Host: x\r\n\r\n")
			select {
			case <-asked:
			case <-time.After(patience):
				t.Fatal("a connection below the limit is not served")
			}
			conns = append(conns, e.conn)
			if err := n.server.Ready(); (err != nil) != (len(conns) == 3) {
				t.Errorf("with %d sockets: %v", len(conns), err)
			}
		}
		over := n.exchange(t)
		n.ended(over.conn)
		for range conns {
			release <- refused
		}
		for _, conn := range conns {
			if response, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil ||
				refused != nil && response.StatusCode != http.StatusUnauthorized {
				t.Errorf("answered with %+v, %v", response, err)
			}
			_ = conn.Close()
		}
		waitFor(t, func() bool { in := n.server.Inspect(); return in.Sockets == 0 && n.server.Stats().Open == 0 })
		if err := n.server.Ready(); err != nil {
			t.Error(err)
		}
	}
}

// A stream on a connection that is not taken over counts once, and its connection as another one afterwards.
func TestServer_CountsSocketsOfResponsesOnce(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.MaxSockets = 2 })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- n.server.ServeHandler(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n.server.Handler().ServeHTTP(flushing{hiding{w}}, r)
		}))
	}()
	n.host = ln.Addr().String()
	const acknowledged = "\"recovered\":false}\n\n\r\n"
	first := n.dialEvents("ann", "1.1")
	readUntil(t, first, acknowledged)
	if err := n.server.Ready(); err != nil {
		t.Error(err)
	}
	second := n.dialEvents("bob", "1.1")
	readUntil(t, second, acknowledged)
	if err := n.server.Ready(); err == nil {
		t.Error("ready although all sockets are in use")
	}
	if _, err := n.manager.DisconnectUser(t.Context(), "ann", manager.NormalClosure); err != nil {
		t.Fatal(err)
	}
	readUntil(t, first, "\r\n0\r\n\r\n")
	waitFor(t, func() bool { return n.server.Ready() == nil })
	third, err := net.Dial("tcp", n.host) // replaces the first, which waits for a request
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	n.ended(first)
	if err := n.server.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve returned %v, want ErrServerClosed", err)
	}
}

// pipe opens a connection of a bubble of synthetic time, and waits until the server has it.
func (n *node) pipe() net.Conn {
	n.t.Helper()
	conn, err := n.dial(n.t.Context(), "", "")
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	synctest.Wait()
	return conn
}

// A connection is kept between two requests for longer than proxies and publishers keep theirs, so that none sends a
// request while the server closes it. One that has not sent a request is closed early.
func TestServer_KeepsIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t)
		for _, header := range []string{"Authorization: Bearer key\r\n", ""} {
			conn := n.pipe()
			for range 3 {
				n.httpGet(conn, header)
				<-time.After(2 * time.Minute)
			}
			n.httpGet(conn, header)
			n.ended(conn)
		}
		silent := n.pipe()
		began := time.Now()
		n.ended(silent)
		if waited := time.Since(began); waited > 10*time.Second {
			t.Errorf("a connection without a request was kept for %v", waited)
		}
	})
}

// At MaxSockets idle connections give way, so the server is ready with them: those without an API key at once and first,
// a publisher's only when it has sent nothing for a while.
func TestServer_ReplacesIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t, neverIdle, func(_ *manager.Options, o *server.Options) { o.MaxSockets = 3 })
		ready := func(want bool) {
			t.Helper()
			synctest.Wait()
			if err := n.server.Ready(); (err == nil) != want {
				t.Errorf("Ready() = %v, want ready %v", err, want)
			}
		}
		publisher, idle := n.pipe(), n.pipe()
		n.httpGet(publisher, "Authorization: Bearer key\r\n")
		n.httpGet(idle, "")
		ann := n.login("ann")
		ready(true)
		n.login("bob") // replaces idle
		n.ended(idle)
		ready(false)
		n.ended(n.pipe()) // the publisher has just sent a request
		n.httpGet(publisher, "Authorization: Bearer key\r\n")
		<-time.After(15 * time.Second)
		ready(true)
		silent := n.pipe() // replaces the publisher
		n.ended(publisher)
		ready(true)
		n.login("eve") // replaces silent
		n.ended(silent)
		ready(false)
		_ = ann.conn.CloseNow()
		ready(true)
	})
}

// The admin listener answers while the public one is full.
func TestServer_AdminListenerHasNoSocketLimit(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) { o.MaxSockets = 1 })
	n.login("ann")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.server.ServeAdmin(ln, n.server.AdminHandler()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = n.server.Close(ctx)
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("ServeAdmin returned %v", err)
		}
	})
	transport := &http.Transport{DisableKeepAlives: true}
	for range 3 {
		resp, err := (&http.Client{Transport: transport}).Get("http://" + ln.Addr().String() + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("/healthz answers %d", resp.StatusCode)
		}
	}
}

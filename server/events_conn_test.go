package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/testlog"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// mounted is a node whose handler an HTTP server of the embedder's serves.
type mounted struct {
	*node
	http *httptest.Server
}

// mount serves the handler of a node, wrapped, on a server of its own.
func mount(t *testing.T, wrap func(http.Handler) http.Handler, configure func(*httptest.Server),
	change ...func(*manager.Options, *server.Options),
) *mounted {
	t.Helper()
	n := start(t, change...)
	srv := httptest.NewUnstartedServer(wrap(n.server.Handler()))
	configure(srv)
	t.Cleanup(srv.Close)
	return &mounted{n, srv}
}

func (m *mounted) events(user, path string) *stream {
	m.t.Helper()
	transport := m.http.Client().Transport.(*http.Transport).Clone()
	m.t.Cleanup(transport.CloseIdleConnections)
	return request(m.t, m.patienceContext(), transport, m.http.URL, http.MethodGet, path,
		http.Header{"Authorization": {"Bearer " + user}})
}

func unwrapped(h http.Handler) http.Handler { return h }

// Over HTTP/2 a stream works as over HTTP/1.1, from its refusal to its end.
func TestEvents_HTTP2(t *testing.T) {
	m := mount(t, unwrapped, func(srv *httptest.Server) { srv.EnableHTTP2 = true; srv.StartTLS() },
		func(o *manager.Options, _ *server.Options) { o.MaxConnectionsPerUser = 2 })
	m.publish("a", 1)
	s := m.events("ann", "/events/uploads/a")
	if s.resp.ProtoMajor != 2 || s.resp.Header.Get("Content-Type") != "text/event-stream" ||
		s.resp.Header.Get("Connection") != "" {
		t.Errorf("answered with %s, %v", s.resp.Proto, s.resp.Header)
	}
	s.subscribed("a", false)
	s.want(`{"action":"note","n":1,"offset":1,"upload_id":"a"}`)
	gone := m.events("ann", "/events/uploads/a")
	gone.subscribed("a", false)
	m.events("ann", "/events/uploads/a").problem(http.StatusTooManyRequests)
	m.events("bad", "/events/uploads/a").problem(http.StatusUnauthorized)
	gone.leave()
	waitFor(t, func() bool { return m.server.Stats().Open == 1 })
	m.publish("a", 2)
	s.want(`{"action":"note","n":2,"offset":2,"upload_id":"a"}`)
	if err := m.server.Drain(m.patienceContext(), 0); err != nil {
		t.Fatal(err)
	}
	s.wantClose(`{"code":1012,"reason":"Server reloading"}`)
	waitFor(t, func() bool { return m.server.Stats().Open == 0 })
}

// TestEvents_SubscriptionHooks: the hooks for subscriptions are called for event streams as for WebSockets.
func TestEvents_SubscriptionHooks(t *testing.T) {
	calls := make(chan string, 2)
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.OnSubscribe = func(_ *server.Client, s server.Subscription) { calls <- "subscribed " + s.UploadID }
		o.OnUnsubscribe = func(_ *server.Client, s server.Subscription) { calls <- "unsubscribed " + s.UploadID }
	})
	stream := n.events("ann", "/events/uploads/a")
	for _, want := range []string{"subscribed a", "unsubscribed a"} {
		select {
		case got := <-calls:
			if got != want {
				t.Errorf("the hook was %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("no hook was called, want %q", want)
		}
		stream.leave()
	}
}

// The write timeout of the embedder's server does not end a stream.
func TestEvents_HTTP2WriteTimeout(t *testing.T) {
	m := mount(t, unwrapped, func(srv *httptest.Server) {
		srv.EnableHTTP2 = true
		srv.Config.WriteTimeout = 200 * time.Millisecond
		srv.StartTLS()
	})
	s := m.events("ann", "/events/uploads/a")
	s.subscribed("a", false)
	<-time.After(400 * time.Millisecond)
	m.publish("a", 1)
	s.want(`{"action":"note","n":1,"offset":1,"upload_id":"a"}`)
}

// A client that does not read its HTTP/2 stream is closed like any other, and holds up nobody.
func TestEvents_HTTP2SlowConsumer(t *testing.T) {
	m := mount(t, unwrapped, func(srv *httptest.Server) { srv.EnableHTTP2 = true; srv.StartTLS() },
		func(_ *manager.Options, o *server.Options) {
			o.QueueAge, o.CloseTimeout = 100*time.Millisecond, 100*time.Millisecond
		})
	s := m.events("ann", "/events/uploads/a")
	s.subscribed("a", false)
	big := fmt.Sprintf(`{"action":"note","pad":%q}`, strings.Repeat("x", 60_000))
	waitFor(t, func() bool { // beyond the window of the client
		m.publishJSON("a", big)
		return m.server.Stats().SlowConsumers == 1
	})
	waitFor(t, func() bool { return m.server.Stats().Open == 0 })
}

// hiding is a response writer of a middleware that hides the hijacker.
type hiding struct{ w http.ResponseWriter }

func (h hiding) Header() http.Header         { return h.w.Header() }
func (h hiding) Write(p []byte) (int, error) { return h.w.Write(p) }
func (h hiding) WriteHeader(status int)      { h.w.WriteHeader(status) }

// flushing is one that can flush.
type flushing struct{ hiding }

func (f flushing) Flush() { f.w.(http.Flusher).Flush() }

// Where the connection cannot be taken over, a stream needs a response that can be flushed, or is refused and says why.
func TestEvents_HiddenHijacker(t *testing.T) {
	plain := func(srv *httptest.Server) { srv.Start() }
	m := mount(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(flushing{hiding{w}}, r) })
	}, plain)
	s := m.events("ann", "/events/uploads/a")
	s.subscribed("a", false)
	m.publish("a", 1)
	s.want(`{"action":"note","n":1,"offset":1,"upload_id":"a"}`)
	s.leave()
	waitFor(t, func() bool { return m.server.Stats().Open == 0 })

	for name, configure := range map[string]func(*httptest.Server){
		"HTTP/1.1": plain, "HTTP/2": func(srv *httptest.Server) { srv.EnableHTTP2 = true; srv.StartTLS() },
	} {
		var log testlog.Buffer
		m = mount(t, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(hiding{w}, r) })
		}, configure, func(_ *manager.Options, o *server.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		p := m.events("ann", "/events/uploads/a").problem(http.StatusInternalServerError)
		waitFor(t, func() bool { return m.server.Stats().Open == 0 })
		if got := m.server.Stats(); !strings.Contains(p.Detail, "middleware") || got.HijackFailed != 1 {
			t.Errorf("%s: got %+v and %d failures", name, p, got.HijackFailed)
		}
		if text := log.String(); !strings.Contains(text, "hiding") || !strings.Contains(text, "Unwrap") {
			t.Errorf("%s: logged %s", name, text)
		}
	}
}

// Fields that a middleware has set are part of the answer.
func TestEvents_KeepsHeaderOfMiddleware(t *testing.T) {
	m := mount(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Request-Id", "7")
			w.Header().Set("Cache-Control", "public")
			h.ServeHTTP(w, r)
		})
	}, func(srv *httptest.Server) { srv.Start() })
	h := m.events("ann", "/events/uploads/a").resp.Header
	if h.Get("X-Request-Id") != "7" || h.Get("Cache-Control") != "no-store, no-transform" || h.Get("Date") == "" {
		t.Errorf("the header is %v", h)
	}
}

// Fields that describe a body of the middleware's, which a stream on its own connection bypasses, are not part of the
// answer, whether it is a stream or a problem.
func TestEvents_DropsHeaderOfBypassedBody(t *testing.T) {
	m := mount(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for name, value := range map[string]string{
				"Content-Encoding": "gzip", "Content-Length": "5", "Content-Range": "bytes 0-4/5", "Content-MD5": "AA==",
				"Content-Digest": "sha-256=:AA==:", "Repr-Digest": "sha-256=:AA==:", "Digest": "sha-256=AA==",
				"Transfer-Encoding": "gzip", "Trailer": "X-Sum", "ETag": `"5"`, "Accept-Ranges": "bytes",
				"Last-Modified": "Tue, 15 Nov 1994 12:45:26 GMT", "Keep-Alive": "timeout=5", "Upgrade": "h2c",
				"Vary": "Accept-Encoding",
			} {
				w.Header().Set(name, value)
			}
			h.ServeHTTP(w, r)
		})
	}, func(srv *httptest.Server) { srv.Start() }, func(o *manager.Options, _ *server.Options) { o.MaxConnectionsPerUser = 1 })
	m.host = m.http.Listener.Addr().String()
	for _, want := range [][]string{ // the user's second stream is one too many
		{"HTTP/1.1 200 OK", "Cache-Control", "Connection", "Content-Type", "Date", "Vary", "X-Accel-Buffering"},
		{"HTTP/1.1 429 Too Many Requests", "Cache-Control", "Connection", "Content-Length", "Content-Type", "Date", "Vary"},
	} {
		head := readUntil(t, m.dialEvents("ann", "1.1"), "\r\n\r\n")
		var got []string
		for line := range strings.SplitSeq(strings.TrimSpace(head), "\r\n") {
			name, _, _ := strings.Cut(line, ": ")
			got = append(got, name)
		}
		slices.Sort(got[1:])
		if got = slices.Compact(got); !slices.Equal(got, want) || strings.Contains(head, "Content-Length: 5\r\n") {
			t.Errorf("answered with\n%s\nwant %v", head, want)
		}
	}
}

// Over TLS a stream works as without, and its end is noticed without a goroutine that reads.
func TestEvents_TLS(t *testing.T) {
	m := mount(t, unwrapped, func(srv *httptest.Server) { srv.StartTLS() })
	s := m.events("ann", "/events/uploads/a")
	s.subscribed("a", false)
	m.publish("a", 1)
	s.want(`{"action":"note","n":1,"offset":1,"upload_id":"a"}`)
	gone := m.events("bob", "/events/uploads/a")
	gone.subscribed("a", false)
	gone.leave()
	waitFor(t, func() bool { return m.server.Stats().Open == 1 })
	drained := make(chan error, 1)
	go func() { drained <- m.server.Drain(m.patienceContext(), 0) }()
	s.wantClose(`{"code":1012,"reason":"Server reloading"}`)
	s.leave()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// dialEvents sends the request for a stream on a connection of its own.
func (n *node) dialEvents(user, version string) net.Conn {
	n.t.Helper()
	return n.dialRequest(fmt.Sprintf("GET /events/uploads/a HTTP/%s\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n",
		version, n.host, user))
}

// dialRequest sends a request on a connection of its own.
func (n *node) dialRequest(request string) net.Conn {
	n.t.Helper()
	conn, err := n.dial(n.patienceContext(), "tcp", n.host)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		n.t.Fatal(err)
	}
	return conn
}

// readUntil reads up to a text.
func readUntil(t testing.TB, r io.Reader, end string) string {
	t.Helper()
	var got bytes.Buffer
	for !strings.HasSuffix(got.String(), end) {
		if _, err := io.CopyN(&got, r, 1); err != nil {
			t.Fatalf("%v after %q", err, got.String())
		}
	}
	return got.String()
}

// The bytes of a response as nginx and curl get them: no length and no chunks, the stream ends with the connection.
func TestEvents_ResponseBytes(t *testing.T) {
	n := start(t)
	for _, version := range []string{"1.0", "1.1"} {
		head := readUntil(t, n.dialEvents("ann", version), "\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || !strings.Contains(head, "\r\nConnection: close\r\n") ||
			strings.Contains(head, "Transfer-Encoding") || strings.Contains(head, "Content-Length") {
			t.Errorf("the answer to HTTP/%s is %q", version, head)
		}
	}
}

// Bytes that a client sends after its request are not read, and its end is noticed behind them.
func TestEvents_InputAfterRequest(t *testing.T) {
	n := start(t)
	conn := n.dialEvents("ann", "1.1")
	readUntil(t, conn, "}\n\n")
	for range 64 {
		if _, err := conn.Write([]byte("GET /events/uploads/a HTTP/1.1\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	n.publish("a", 1)
	readUntil(t, conn, `"offset":1,"upload_id":"a"}`)
	_ = conn.Close()
	waitFor(t, func() bool { return n.server.Stats().Open == 0 })
}

// On a connection without a descriptor, input is read and bounded.
func TestEvents_FloodAfterRequest(t *testing.T) {
	n := startPipedNow(t)
	conn := n.dialEvents("ann", "1.1")
	go func() { // until the connection is closed
		junk := make([]byte, 1024)
		for {
			if _, err := conn.Write(junk); err != nil {
				return
			}
		}
	}()
	readUntil(t, conn, `data: {"code":1008,"reason":"Message rate exceeded"}`)
	_ = conn.Close()
	waitFor(t, func() bool { return n.server.Stats().Open == 0 })
}

func startPipedNow(t testing.TB) *node {
	n := startPiped(t)
	n.patience = patience
	return n
}

// A client that closes its side only is gone, as everywhere in HTTP.
func TestEvents_HalfClosed(t *testing.T) {
	n := start(t)
	conn := n.dialEvents("ann", "1.1")
	readUntil(t, conn, "}\n\n")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return n.server.Stats().Open == 0 })
}

// A client that never reads does not delay others, and is closed when the kernel takes no more for it.
func TestEvents_NeverReads(t *testing.T) {
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.QueueAge, o.CloseTimeout = 200*time.Millisecond, 100*time.Millisecond
	})
	deaf := n.dialEvents("ann", "1.1")
	_ = deaf.(*net.TCPConn).SetReadBuffer(4 << 10)
	s := n.events("bob", "/events/uploads/a")
	s.subscribed("a", false)
	big := fmt.Sprintf(`{"action":"note","pad":%q}`, strings.Repeat("x", 60_000))
	waitFor(t, func() bool {
		n.publishJSON("a", big)
		if got := s.object(); got["action"] != "note" {
			t.Fatalf("got %v", got)
		}
		return n.server.Stats().SlowConsumers == 1
	})
	waitFor(t, func() bool { return n.server.Stats().Open == 1 })
}

// A client that leaves while its request is being decided leaves nothing behind.
func TestEvents_LeavesEarly(t *testing.T) {
	entered, block := make(chan struct{}), make(chan struct{})
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.Authorize = func(ctx context.Context, _ server.Identity, _ string) error {
			close(entered)
			<-ctx.Done() // the request ends with its client
			close(block)
			return errors.New("cancelled")
		}
	})
	conn := n.dialEvents("ann", "1.1")
	<-entered
	_ = conn.Close()
	<-block
	waitFor(t, func() bool { return n.server.Stats().Open == 0 && n.manager.Stats().Users == 0 })
	if got := n.server.Stats().Unavailable; got != 0 {
		t.Errorf("counted as %d failures of the authorizer", got)
	}
}

package server_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
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

// A request whose AuthorizeAPI outlasts the server publishes nothing, and a stream whose Authorize does is refused. The
// handler belongs to a server of the embedder's, which goes on.
func TestServer_RequestsThatOutlastClose(t *testing.T) {
	for request, set := range map[*http.Request]func(*server.Options, func(context.Context) error){
		httptest.NewRequest(http.MethodPost, "/v1/uploads/a/messages", strings.NewReader(note)): setAuthorizeAPI,
		httptest.NewRequest(http.MethodGet, "/events/uploads/a?access_token=ann", http.NoBody):  setAuthorize,
	} {
		entered, release := make(chan struct{}), make(chan struct{})
		n := start(t, func(_ *manager.Options, o *server.Options) {
			set(o, func(context.Context) error { close(entered); <-release; return nil })
		})
		w := httptest.NewRecorder()
		served := make(chan struct{})
		go func() {
			defer close(served)
			n.server.Handler().ServeHTTP(w, request)
		}()
		<-entered
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := n.server.Close(ctx); err == nil {
			t.Errorf("%s: Close returned no error while the hook was running", request.URL)
		}
		close(release)
		<-served
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "shutting down") {
			t.Errorf("%s is answered with %d: %s", request.URL, w.Code, w.Body)
		}
		if _, at, err := n.manager.Newest(t.Context(), "a"); !errors.Is(err, manager.ErrUnknownUpload) {
			t.Errorf("%s: published up to %d, %v; want nothing", request.URL, at.Offset, err)
		}
	}
}

// A hook that its client has ended by leaving, or the server by its end, is no failure to be logged.
func TestHooks_EndedIsNotFailed(t *testing.T) {
	for name, set := range map[string]func(*server.Options, func(context.Context) error){
		"Identify": setIdentify, "AuthorizeAPI": setAuthorizeAPI, "Authenticate": setAuthenticate, "Authorize": setAuthorize,
	} {
		for _, how := range []string{"leave", "close"} {
			t.Run(name+" "+how, func(t *testing.T) {
				var log testlog.Buffer
				entered := make(chan struct{})
				n := start(t, func(_ *manager.Options, o *server.Options) {
					o.Logger = slog.New(slog.NewTextHandler(&log, nil))
					set(o, func(ctx context.Context) error { close(entered); <-ctx.Done(); return ctx.Err() })
				})
				ctx, leave := context.WithCancel(t.Context())
				target := "/events/uploads/a?access_token=blocked"
				if name == "AuthorizeAPI" {
					target = "/v1/stats"
				}
				served := make(chan struct{})
				go func() {
					defer close(served)
					r := httptest.NewRequest(http.MethodGet, target, http.NoBody)
					n.server.Handler().ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
				}()
				<-entered
				if how == "leave" {
					leave()
				} else if err := n.server.Close(n.patienceContext()); err != nil {
					t.Error(err)
				}
				<-served
				leave()
				if text := log.String(); text != "" {
					t.Errorf("logged %s", text)
				}
			})
		}
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

// A client that sends requests and never reads an answer is cut off too.
func TestServer_EndsClientsThatReadNoResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t)
		conn, err := n.dial(t.Context(), "tcp", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		begin := time.Now()
		for err == nil {
			_, err = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		if lasted := time.Since(begin); lasted > time.Minute {
			t.Errorf("the connection lasted %v", lasted)
		}
	})
}

// A body that does not arrive delays the end of the server by seconds, not by the time that bodies usually have.
func TestServer_DrainEndsSlowBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startPiped(t)
		conn, err := n.dial(t.Context(), "tcp", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "POST /v1/uploads/u/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"+
			"Authorization: Bearer key\r\n\r\n{")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		answer := make(chan string, 1)
		go func() {
			text, _ := io.ReadAll(conn)
			answer <- string(text)
		}()
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := n.server.Close(ctx); err != nil {
			t.Error(err)
		}
		if lasted := time.Since(begin); lasted > 5*time.Second {
			t.Errorf("Close lasted %v", lasted)
		}
		if text := <-answer; !strings.Contains(text, "408 Request Timeout") || !strings.Contains(text, "Connection: close") {
			t.Errorf("answered %s", text) // with 400 a publisher would give up
		}
	})
}

// A panic of a handler is logged as an error with its stack and without its value, which may hold bytes of a request.
func TestServer_LogsPanicsOfHandlersWithoutTheirValue(t *testing.T) {
	var log testlog.Buffer
	n := start(t, func(_ *manager.Options, o *server.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- n.server.ServeHandler(ln, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			panic("a secret\ngoroutine of a secret")
		}))
	}()
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Get("http://" + ln.Addr().String() + "/")
	if err == nil {
		_ = resp.Body.Close()
	}
	waitFor(t, func() bool { return n.server.Stats().Panics == 1 && log.String() != "" })
	text := log.String()
	if strings.Contains(text, "secret") || !strings.Contains(text, "level=ERROR") ||
		!strings.Contains(text, "WithoutTheirValue") {
		t.Errorf("logged: %s", text)
	}
	if err := n.server.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve returned %v, want ErrServerClosed", err)
	}
}

// The methods of a zero Server report how to make one.
func TestServer_ZeroValue(t *testing.T) {
	var s server.Server
	for name, err := range map[string]error{
		"Serve": s.Serve(newPipeListener()), "Drain": s.Drain(t.Context(), 0), "Close": s.Close(t.Context()),
	} {
		if err == nil || !strings.Contains(err.Error(), "server.New") {
			t.Errorf("%s returns %v", name, err)
		}
	}
	_ = s.Stats()
	for name, h := range map[string]http.Handler{"Handler": s.Handler(), "AdminHandler": s.AdminHandler()} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if w.Code < 500 || !strings.Contains(w.Body.String(), "server.New") {
			t.Errorf("%s answers %d %q", name, w.Code, w.Body)
		}
	}
	var c server.Client
	c.Close(manager.NormalClosure)
	c.Abort()
	<-c.Done()
	<-c.Context().Done()
	if got := c.SendText(nil); got != manager.Dropped || c.RemoteAddr() == nil || c.UserID() != "" ||
		c.SilentFor() != 0 {
		t.Errorf("a zero Client has sent: %v", got)
	}
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

package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds a test that would otherwise never end. No test waits for it to pass.
const patience = 30 * time.Second

// fixture is a dashboard on a listener of its own, and the observed server on another one.
type fixture struct {
	*testing.T
	manager   *manager.Manager
	server    *server.Server
	dashboard *Dashboard
	residence Residence
	notReady  atomic.Pointer[string] // the reason of the process; nil: none
	url       string                 // of the listener of the dashboard
	public    string                 // of the observed server
}

// apiKey is the API key of the fixture. The tokens of clients are their ids.
const apiKey = "key-of-the-api"

func start(t *testing.T, trusted bool) *fixture {
	t.Helper()
	return startWith(t, trusted, server.Options{APIKeys: []string{apiKey}})
}

// startWith starts a fixture whose server has the options as they are and those that it needs.
func startWith(t *testing.T, trusted bool, opt server.Options) *fixture {
	t.Helper()
	f := &fixture{T: t}
	var err error
	if f.manager, err = manager.New(manager.Options{}); err != nil {
		t.Fatal(err)
	}
	opt.Manager, opt.Authorize = f.manager, server.AuthorizeOpen
	opt.Authenticate = func(_ context.Context, token string) (server.Identity, error) {
		return server.Identity{UserID: token}, nil
	}
	if f.server, err = server.New(opt); err != nil {
		t.Fatal(err)
	}
	f.dashboard, err = New(Options{
		Manager: f.manager, Server: f.server, API: f.server.APIHandler(), Residence: &f.residence,
		Ready: func() error {
			if reason := f.notReady.Load(); reason != nil {
				return errors.New(*reason)
			}
			return f.server.Ready()
		},
		Trusted: func(*http.Request) bool { return trusted }, Node: "n1", Version: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	admin, public := httptest.NewServer(f.dashboard), httptest.NewServer(f.server.Handler())
	f.url, f.public = admin.URL, public.URL
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, closing := range []func(context.Context) error{f.dashboard.Close, f.server.Close, f.manager.Close} {
			if err := closing(ctx); err != nil {
				t.Error(err)
			}
		}
		admin.Close()
		public.Close()
	})
	return f
}

// call makes a request to the dashboard and returns the answer and its body. headers are names and values in turn.
func (f *fixture) call(method, path, body string, headers ...string) (*http.Response, string) {
	f.Helper()
	r, err := http.NewRequestWithContext(f.Context(), method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(r)
	if err != nil {
		f.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		f.Fatal(err)
	}
	return response, string(text)
}

// withKey are the headers of a request with the API key.
var withKey = []string{"Authorization", "Bearer " + apiKey, "Content-Type", "application/json"}

// viewer is a page that follows.
type viewer struct {
	f    *fixture
	conn *websocket.Conn
	ctx  context.Context // the test's own bound
}

// token returns a token for the stream.
func (f *fixture) token(headers ...string) string {
	f.Helper()
	response, body := f.call(http.MethodGet, Path+"/token", "", headers...)
	var granted struct{ Token string }
	if err := json.Unmarshal([]byte(body), &granted); err != nil || response.StatusCode != http.StatusOK {
		f.Fatalf("%d %s", response.StatusCode, body)
	}
	return granted.Token
}

// dial opens a WebSocket on a listener and authenticates.
func (f *fixture) dial(url, token string) *viewer {
	f.Helper()
	conn, _, err := f.tryDial(url)
	if err != nil {
		f.Fatal(err)
	}
	conn.SetReadLimit(maxNumbersBytes)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	f.Cleanup(func() {
		_ = conn.CloseNow()
		cancel()
	})
	v := &viewer{f, conn, ctx}
	v.send(`{"type":"auth","token":"` + token + `"}`)
	return v
}

// tryDial opens a WebSocket, and returns the answer of the server if it refuses.
func (f *fixture) tryDial(url string) (*websocket.Conn, *http.Response, error) {
	return websocket.Dial(f.Context(), strings.Replace(url, "http", "ws", 1), &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, Subprotocols: []string{"shoal.v1"},
	})
}

// view opens the stream of the dashboard.
func (f *fixture) view(headers ...string) *viewer {
	f.Helper()
	return f.dial(f.url+Path+"/ws/uploads", f.token(headers...))
}

func (v *viewer) send(text string) {
	v.f.Helper()
	if err := v.conn.Write(v.ctx, websocket.MessageText, []byte(text)); err != nil {
		v.f.Fatal(err)
	}
}

func (v *viewer) follow(upload string) {
	v.f.Helper()
	v.send(`{"action":"subscribe_upload","upload_id":"` + upload + `"}`)
}

// until reads messages until one satisfies a condition, and returns it.
func (v *viewer) until(found func(m map[string]any) bool) map[string]any {
	v.f.Helper()
	for {
		_, data, err := v.conn.Read(v.ctx)
		if err != nil {
			v.f.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(data, &m); err != nil {
			v.f.Fatal(err)
		}
		if found(m) {
			return m
		}
	}
}

// action returns a condition for until.
func action(name string) func(map[string]any) bool {
	return func(m map[string]any) bool { return m["action"] == name }
}

func (f *fixture) publish(uploadID, text string) {
	f.Helper()
	m, err := manager.Parse(uploadID, []byte(text), time.Now())
	if err == nil {
		_, err = f.manager.Publish(f.Context(), uploadID, m)
	}
	if err != nil {
		f.Fatal(err)
	}
}

// waitFor waits until a condition holds that another goroutine is about to make true.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-deadline:
			t.Fatal("the condition does not come true")
		case <-time.After(time.Millisecond):
		}
	}
}

package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// patience bounds a test that would otherwise never end. No test waits for it to pass.
const patience = 30 * time.Second

// node is a server with its manager, listening on a port of its own or, in a bubble of synthetic time, on
// pipes.
type node struct {
	t       testing.TB
	manager *manager.Manager
	server  *server.Server
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	host    string
	// patience bounds the waiting of this node's clients.
	patience time.Duration
}

// tokens is an Authenticate for which a token is "user" or "user/lifetime".
func tokens(_ context.Context, token string) (server.Identity, error) {
	user, life, limited := strings.Cut(token, "/")
	if user == "bad" {
		return server.Identity{}, &server.TokenError{Message: "Invalid signature"}
	}
	if user == "broken" {
		return server.Identity{}, errors.New("the database holds a secret")
	}
	id := server.Identity{UserID: user}
	if limited {
		d, err := time.ParseDuration(life)
		if err != nil {
			return server.Identity{}, err
		}
		id.Expires = time.Now().Add(d)
	}
	return id, nil
}

// forbidSome is an Authorize that refuses ids beginning with "secret" and fails for "broken".
func forbidSome(_ context.Context, _ server.Identity, uploadID string) error {
	switch {
	case strings.HasPrefix(uploadID, "secret"):
		return server.ErrForbidden
	case strings.HasPrefix(uploadID, "broken"):
		return errors.New("the authorizer is away")
	}
	return nil
}

// start runs a node over TCP on a free port of the loopback interface.
func start(t testing.TB, change ...func(*manager.Options, *server.Options)) *node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := startOn(t, ln, change...)
	n.dial, n.patience = (&net.Dialer{}).DialContext, patience
	return n
}

// startPiped runs a node whose connections are pipes, for use under synctest.
func startPiped(t testing.TB, change ...func(*manager.Options, *server.Options)) *node {
	t.Helper()
	ln := newPipeListener()
	n := startOn(t, ln, change...)
	n.dial, n.patience = ln.dial, 24*time.Hour // which pass in no time
	return n
}

func startOn(t testing.TB, ln net.Listener, change ...func(*manager.Options, *server.Options)) *node {
	t.Helper()
	mo := manager.Options{}
	so := server.Options{Authenticate: tokens, Authorize: forbidSome, APIKeys: []string{"key"}}
	for _, c := range change {
		c(&mo, &so)
	}
	m, err := manager.New(mo)
	if err != nil {
		t.Fatal(err)
	}
	so.Manager = m
	s, err := server.New(so)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, manager: m, server: s, host: ln.Addr().String()}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("closing the server: %v", err)
		}
		if err := m.Close(ctx); err != nil {
			t.Errorf("closing the manager: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve returned %v, want ErrServerClosed", err)
		}
	})
	return n
}

// publish publishes a message of the test's own.
func (n *node) publish(uploadID string, number int) manager.Position {
	n.t.Helper()
	return n.publishJSON(uploadID, fmt.Sprintf(`{"action":"note","n":%d}`, number))
}

func (n *node) publishJSON(uploadID, message string) manager.Position {
	n.t.Helper()
	e, err := manager.Parse(uploadID, []byte(message), time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	pos, err := n.manager.Publish(context.Background(), uploadID, e)
	if err != nil {
		n.t.Fatal(err)
	}
	return pos
}

// client is a WebSocket client that has nothing in common with the server but RFC 6455.
type client struct {
	t    testing.TB
	conn *websocket.Conn
	ctx  context.Context // the test's own bound
}

// open upgrades a connection without authenticating.
func (n *node) open(subprotocols ...string) *client {
	n.t.Helper()
	c, _, err := n.tryOpen(nil, subprotocols...)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

func (n *node) tryOpen(header http.Header, subprotocols ...string) (*client, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), n.patience)
	n.t.Cleanup(cancel)
	transport := &http.Transport{DialContext: n.dial, DisableKeepAlives: true}
	conn, resp, err := websocket.Dial(ctx, "ws://"+n.host+"/ws/uploads", &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: transport},
		HTTPHeader:   header,
		Subprotocols: subprotocols,
	})
	if err != nil {
		return nil, resp, err
	}
	conn.SetReadLimit(16 << 20)
	n.t.Cleanup(func() { _ = conn.CloseNow() })
	return &client{n.t, conn, ctx}, resp, nil
}

// login opens a connection and authenticates as the user.
func (n *node) login(user string, subprotocols ...string) *client {
	n.t.Helper()
	c := n.open(subprotocols...)
	c.send(`{"type":"auth","token":"` + user + `"}`)
	name, _, _ := strings.Cut(user, "/")
	c.want(`{"action":"auth_success","user_id":"` + name + `"}`)
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.conn.Write(c.ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
}

// next returns the next message that is not a ping.
func (c *client) next() string {
	c.t.Helper()
	for {
		_, data, err := c.conn.Read(c.ctx)
		if err != nil {
			c.t.Fatalf("reading: %v", err)
		}
		if string(data) != `{"action":"ping"}` {
			return string(data)
		}
	}
}

// want reads the next messages, which must be these.
func (c *client) want(messages ...string) {
	c.t.Helper()
	for _, m := range messages {
		if got := c.next(); got != m {
			c.t.Fatalf("got  %s\nwant %s", got, m)
		}
	}
}

// wantClose reads on until the connection is closed, which must be with this reason, and returns the messages
// that came before.
func (c *client) wantClose(reason manager.CloseReason) (before []string) {
	c.t.Helper()
	for {
		_, data, err := c.conn.Read(c.ctx)
		if err == nil {
			before = append(before, string(data))
			continue
		}
		var closed websocket.CloseError
		if !errors.As(err, &closed) {
			c.t.Fatalf("the connection ended with %v, want a close frame with %v", err, reason)
		}
		if uint16(closed.Code) != reason.Code || closed.Reason != reason.Text {
			c.t.Fatalf("closed with %d %q, want %d %q", closed.Code, closed.Reason, reason.Code, reason.Text)
		}
		return before
	}
}

// object reads the next message as JSON.
func (c *client) object() map[string]any {
	c.t.Helper()
	var o map[string]any
	text := c.next()
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	return o
}

// pipeListener accepts connections that are pipes.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// neverIdle keeps silent clients connected.
func neverIdle(_ *manager.Options, o *server.Options) { o.IdleTimeout = 48 * time.Hour }

// waitFor waits until a condition holds that another goroutine is about to make true.
func waitFor(t testing.TB, condition func() bool) {
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

package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// address is the address of every node: clients reach the current node of their place.
const address = "http://shoal.test"

// place is where clients find a server: at most one node at a time, whose connections are pipes, so that it can run in
// a bubble of synthetic time.
type place struct {
	t  *testing.T
	mu sync.Mutex
	// node is the current node, listening the listener of it or of another server; nil while nothing listens.
	node      *node
	listening *listener
	// conns are the client's sides of all open connections, dials counts the attempts to connect.
	conns []net.Conn
	dials int
	// wrap changes a new connection; nil: not at all.
	wrap func(net.Conn) net.Conn
}

// node is a server with its manager.
type node struct {
	manager *manager.Manager
	server  *server.Server
	close   func()

	listener *listener
}

// listener accepts pipes.
type listener struct {
	conns chan net.Conn
	gone  chan struct{}
}

func newListener() *listener { return &listener{make(chan net.Conn), make(chan struct{})} }

var errRefused = errors.New("connection refused")

// newPlace returns a place with a node.
func newPlace(t *testing.T, change ...func(*manager.Options, *server.Options)) *place {
	t.Helper()
	p := &place{t: t}
	p.start(change...)
	t.Cleanup(p.drain)
	return p
}

// dial connects to the current node.
func (p *place) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.mu.Lock()
	l, wrap := p.listening, p.wrap
	p.dials++
	p.mu.Unlock()
	if l == nil {
		return nil, errRefused
	}
	here, there := net.Pipe()
	select {
	case l.conns <- there:
	case <-l.gone:
		return nil, errRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if wrap != nil {
		here = wrap(here)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, here)
	return here, nil
}

// cut breaks all connections without a close frame.
func (p *place) cut() {
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// attempts returns the number of dials so far.
func (p *place) attempts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials
}

// start starts a node here, in the place of a former one.
func (p *place) start(change ...func(*manager.Options, *server.Options)) *node {
	p.t.Helper()
	mo := manager.Options{HistoryMessages: 1000}
	so := server.Options{
		Authenticate: authenticate, Authorize: authorize, APIKeys: []string{"key"}, IdleTimeout: 48 * time.Hour,
		PingInterval: 24 * time.Hour,
	}
	for _, c := range change {
		c(&mo, &so)
	}
	m, err := manager.New(mo)
	if err != nil {
		p.t.Fatal(err)
	}
	so.Manager = m
	s, err := server.New(so)
	if err != nil {
		p.t.Fatal(err)
	}
	l := newListener()
	n := &node{manager: m, server: s, listener: l}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	n.close = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(s.Close(ctx), m.Close(ctx)); err != nil {
			p.t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			p.t.Error(err)
		}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.node, p.listening = n, l
	return n
}

// serve answers every request here with a handler, instead of a node, until the end of the test.
func (p *place) serve(handler http.HandlerFunc) {
	l := newListener()
	s := &http.Server{Handler: handler, ReadHeaderTimeout: time.Hour}
	var running sync.WaitGroup
	running.Go(func() { _ = s.Serve(l) })
	p.t.Cleanup(func() {
		p.cut()
		_ = s.Close()
		running.Wait()
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listening = l
}

// drain closes the node as on SIGTERM: nothing listens here until the next start.
func (p *place) drain() {
	if n := p.leave(); n != nil {
		n.close()
	}
}

// kill ends the node as SIGKILL does: connections break without a close frame.
func (p *place) kill() {
	n := p.leave()
	p.cut()
	n.close()
}

func (p *place) leave() *node {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.node
	p.node, p.listening = nil, nil
	return n
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.gone:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	select {
	case <-l.gone:
	default:
		close(l.gone)
	}
	return nil
}

func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// authenticate accepts "user" and "user/lifetime/n", whose number only makes it another token.
func authenticate(_ context.Context, token string) (server.Identity, error) {
	parts := strings.Split(token, "/")
	switch parts[0] {
	case "bad":
		return server.Identity{}, &server.TokenError{Message: "Invalid signature"}
	case "broken":
		return server.Identity{}, errors.New("the database is away")
	}
	return server.Identity{UserID: parts[0]}, nil
}

func authorize(_ context.Context, _ server.Identity, uploadID string) error {
	if strings.HasPrefix(uploadID, "secret") {
		return server.ErrForbidden
	}
	return nil
}

// publish publishes events of the application's own with these numbers.
func (n *node) publish(t *testing.T, uploadID string, numbers ...int) {
	t.Helper()
	for _, number := range numbers {
		n.publishJSON(t, uploadID, fmt.Sprintf(`{"action":"note","n":%d}`, number))
	}
}

func (n *node) publishJSON(t *testing.T, uploadID, message string) {
	t.Helper()
	e, err := manager.Parse(uploadID, []byte(message), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.manager.Publish(t.Context(), uploadID, e); err != nil {
		t.Fatal(err)
	}
}

// client returns a client of the place. It is closed at the end of the test.
func (p *place) client(change ...func(*client.Options)) *client.Client {
	p.t.Helper()
	o := client.Options{
		Token:      func(context.Context) (string, error) { return "ann", nil },
		APIKey:     "key",
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: p.dial}},
	}
	for _, c := range change {
		c(&o)
	}
	c, err := client.New(address, o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

// loop is a running loop over an upload.
type loop struct {
	t     *testing.T
	items chan loopItem
	stop  context.CancelFunc
}

type loopItem struct {
	message client.Message
	err     error
}

// follow starts a loop, which takes an item whenever the test does.
func follow(t *testing.T, c *client.Client, uploadID string) *loop {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &loop{t: t, items: make(chan loopItem), stop: cancel}
	go func() {
		defer close(l.items)
		for m, err := range c.Follow(ctx, uploadID) {
			select {
			case l.items <- loopItem{m, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		for range l.items { // the loop ends with its channel
		}
	})
	return l
}

// next returns the next item.
func (l *loop) next() (client.Message, error) {
	l.t.Helper()
	select {
	case item, ok := <-l.items:
		if !ok {
			l.t.Fatal("the loop has ended")
		}
		return item.message, item.err
	case <-time.After(24 * time.Hour): // of synthetic time
		l.t.Fatal("nothing comes")
	}
	return client.Message{}, nil
}

// want reads notes with these numbers.
func (l *loop) want(numbers ...int) {
	l.t.Helper()
	for _, number := range numbers {
		m, err := l.next()
		if err != nil {
			l.t.Fatalf("waiting for %d: %v", number, err)
		}
		var note struct{ N int }
		if err := m.Decode(&note); err != nil || note.N != number {
			l.t.Fatalf("got %s (%v), want note %d", m.Data, err, number)
		}
	}
}

// wantGap reads a gap.
func (l *loop) wantGap() *client.GapError {
	l.t.Helper()
	m, err := l.next()
	var gap *client.GapError
	if !errors.As(err, &gap) {
		l.t.Fatalf("got %s, %v, want a gap", m.Data, err)
	}
	return gap
}

// wantEnd reads the last error, which must match.
func (l *loop) wantEnd(target error) error {
	l.t.Helper()
	m, err := l.next()
	if !errors.Is(err, target) {
		l.t.Fatalf("got %s, %v, want the end with %v", m.Data, err, target)
	}
	if item, ok := <-l.items; ok {
		l.t.Fatalf("after the end came %s, %v", item.message.Data, item.err)
	}
	return err
}
